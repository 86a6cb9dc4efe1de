"""What the JSON files of a model folder say, read without transformers, which would take seconds to import."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError, first_line


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file.

    Raises:
        UserError: it cannot be read.
    """
    content = _read(file, json.loads)
    return content if isinstance(content, dict) else {}


def template_in(folder: Path) -> str:
    """The chat template of a model or tokenizer folder, in whichever file it lies; empty where there is none.

    Raises:
        UserError: a file of it cannot be read.
    """
    if template := _read(folder / "chat_template.jinja", str):
        return template
    for name in ("tokenizer_config.json", "chat_template.json"):
        if found := _default_of(read_json(folder / name).get("chat_template")):
            return found
    return ""


def _read(file: Path, parsed: Callable[[str], Any]) -> Any:
    try:
        return parsed(file.read_text(encoding="utf-8")) if file.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({first_line(error)}): fetch the model again") from None


def _default_of(template: Any) -> str:
    """Some tokenizers have several by name."""
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        return str(named.get("default") or next(iter(named.values()), ""))
    return str(template or "")
