"""Is a user's reward function, or task, the one that a run began with? Its source says so, wherever its file lies."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

OF_THE_KIT = {"kit", "rewards"}  # a newer kit continues a run, and the user's file may lie beside it or not


def source_hash(file: Path, name: str) -> str:
    """A short hash of what ``name`` is made of: its own source, that of all in the file that it uses, and the files
    beside it that these import. Another function of the file, or another place of it, changes nothing.

    Raises:
        SyntaxError: the file is no Python.
    """
    text = read_source(file)
    statements = [node for node in ast.parse(text).body if not _is_comment(node)]
    used, wanted = {name}, True
    while wanted:
        parts = [node for node in statements if used & _bound(node) or not _bound(node)]
        wanted = bool(found := {other for node in parts for other in _mentioned(node)} - used)
        used |= found
    pieces = ["\n".join(text.split("\n")[_first_line(node) - 1 : node.end_lineno]).rstrip() for node in parts]
    beside = sorted({module for node in parts for module in _imported(node, file.parent)} - {file})
    pieces += [read_source(module).rstrip() for module in beside]
    return hashlib.sha256("\n".join(pieces).encode()).hexdigest()[:16]


def whole_source_hash(file: Path) -> str:
    """A short hash of a whole file and of the files beside it that it imports.

    Raises:
        SyntaxError: the file is no Python.
    """
    text = read_source(file)
    beside = sorted(set(_imported(ast.parse(text), file.parent)) - {file})
    return hashlib.sha256("\n".join([text, *map(read_source, beside)]).encode()).hexdigest()[:16]


def read_source(file: Path) -> str:
    """A Python file as text, however its lines end."""
    return file.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")


def _is_comment(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)  # a text that stands alone


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])


def _bound(node: ast.stmt) -> set[str]:
    """The names of the file that a statement defines; what it defines inside a function or class is not the file's."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            found.add(inner.id)
        elif isinstance(inner, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in inner.names} - {"*"}
        elif isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(inner.name)
    return found


def _mentioned(node: ast.stmt) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _imported(node: ast.AST, folder: Path) -> Iterator[Path]:
    """The files in ``folder`` that a statement imports, and those that they import in turn."""
    waiting: list[ast.AST] = [node]
    seen: set[Path] = set()
    while waiting:
        for inner in ast.walk(waiting.pop()):
            if isinstance(inner, ast.Import):
                names = [alias.name for alias in inner.names]
            elif isinstance(inner, ast.ImportFrom):
                names = [inner.module] if inner.module else [alias.name for alias in inner.names]
            else:
                continue
            for first in {name.split(".")[0] for name in names} - OF_THE_KIT:
                place = folder / first
                for module in {place.with_suffix(".py"), *place.rglob("*.py")} - seen:
                    if module.is_file():
                        seen.add(module)
                        with suppress(SyntaxError):  # it may be no module that is ever imported
                            waiting.append(ast.parse(read_source(module)))
                        yield module
