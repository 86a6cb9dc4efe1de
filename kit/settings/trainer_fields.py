"""The fields of TRL's GRPOConfig, read from the installed source: importing the packages takes seconds."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

_SOURCES = (
    ("trl", "trainer/grpo_config.py"),
    ("trl", "trainer/base_config.py"),
    ("transformers", "training_args.py"),
)


@cache
def trainer_fields() -> dict[str, str]:
    """The fields that GRPOConfig and what it inherits from define, each with its type as the source has it.

    Empty where TRL is not installed.
    """
    fields: dict[str, str] = {}
    for package, file in reversed(_SOURCES):  # from the base class on, so that the last word is GRPOConfig's
        fields |= _annotations(package, file)
    return fields


def _annotations(package: str, file: str) -> dict[str, str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return {}
    source = Path(spec.origin).parent / file
    if not source.is_file():
        return {}
    classes = [node for node in ast.parse(source.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    fields = [node for body in classes for node in body.body if isinstance(node, ast.AnnAssign)]
    return {field.target.id: ast.unparse(field.annotation) for field in fields if isinstance(field.target, ast.Name)}
