"""Which packages would a user's reward function miss? Read out of its source, so that it need not be called."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from kit.task.reward_source import OF_THE_KIT, read_source


def lacking_packages(file: Path, name: str) -> list[str]:
    """The modules that the function ``name`` imports whenever it is called and that are nowhere to be found; nothing is
    called. What stands behind an ``if``, a ``try`` or a ``return``, or in another function, may never be imported.
    """
    tree = ast.parse(read_source(file)).body
    functions = {node.name: node for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    names = set(_surely_imported(functions[name])) if name in functions else set()
    beside = {path.stem for path in file.parent.iterdir() if path.suffix == ".py" or path.is_dir()}
    return sorted(module for module in names - beside - OF_THE_KIT if not _is_found(module))


def _surely_imported(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Of the statements that a function begins with, up to the first that does more than import or name a value."""
    for node in function.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif not isinstance(node, (ast.Expr, ast.Assign, ast.ImportFrom)) or _calls(node):
            return


def _calls(node: ast.stmt) -> bool:
    return any(isinstance(inner, (ast.Call, ast.Await, ast.Yield, ast.YieldFrom)) for inner in ast.walk(node))


def _is_found(module: str) -> bool:
    try:
        return module in sys.modules or importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
