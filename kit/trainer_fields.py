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
def trainer_fields() -> frozenset[str]:
    """The names that GRPOConfig and what it inherits from define; empty where TRL is not installed."""
    return frozenset(name for package, file in _SOURCES for name in _annotated_names(package, file))


def _annotated_names(package: str, file: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    source = Path(spec.origin).parent / file
    if not source.is_file():
        return []
    classes = [node for node in ast.parse(source.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    fields = [node for body in classes for node in body.body if isinstance(node, ast.AnnAssign)]
    return [field.target.id for field in fields if isinstance(field.target, ast.Name)]
