"""Positions as config.json says them: what transformers 5 writes of them, an older one misreads in silence.

It knows no ``rope_parameters``, takes its own defaults instead, and the model writes nonsense.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.storage.model_files import read_json


def is_older() -> bool:
    """Is the transformers that is installed one that misreads?"""
    return int(version("transformers").split(".")[0]) < 5


def check_positions(folder: Path, shown: str) -> None:
    """Refuse a folder whose config.json the transformers that is installed would misread.

    Raises:
        UserError: begins with ``shown``, how the user knows the model; it has what to add to the file.
    """
    if not is_older():
        return
    whole = read_json(folder / "config.json")
    text = whole.get("text_config")
    lacks = {name: value for part in (whole, text or {}) for name, value in _lacking(part).items()}
    if not lacks:
        return
    lines = ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in lacks.items())
    where = "the text_config of its config.json" if text else "its config.json"
    raise UserError(
        f"{shown} was saved by transformers 5, and transformers {version('transformers')} would misread its positions: "
        f"add {lines} to {where}"
    )


def _lacking(config: dict[str, Any]) -> dict[str, Any]:
    """What an older transformers reads of a config's positions, as far as it is neither there nor its default."""
    written = config.get("rope_parameters") or {}
    everywhere = written.get("full_attention", written)  # in some families each kind of layer has its own
    near = written.get("sliding_attention") or {}
    meant: dict[str, Any] = {
        "rope_theta": everywhere.get("rope_theta"),
        "rope_local_base_freq": near.get("rope_theta"),
    }
    if everywhere.get("rope_type", "default") != "default":
        meant["rope_scaling"] = {name: value for name, value in everywhere.items() if name != "rope_theta"}
    return {
        name: value
        for name, value in meant.items()
        if value is not None and not config.get(name) and value != _default(config, name)
    }


def _default(config: dict[str, Any], name: str) -> Any:
    from transformers import AutoConfig

    try:
        return getattr(AutoConfig.for_model(config.get("model_type", "")), name, None)
    except ValueError:  # a family that it does not know
        return None
