"""Signatures read from a package's source, without importing it: packages for CUDA cannot be imported here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import Parameter, Signature
from typing import Any


def signature(source: str, name: str) -> Signature:
    """The signature of a function, a ``Class.method`` (without self), or a class whose annotated fields are its own.

    A ``**kwargs`` is left out: a name that only lands there has not been declared.
    """
    nodes: list[ast.stmt] = ast.parse(source).body
    found: Any = None
    for part in name.split("."):
        (*_, found) = [node for node in nodes if getattr(node, "name", None) == part] or [None]
        if found is None:
            raise LookupError(f"the source has no {name}")
        nodes = found.body
    if isinstance(found, ast.ClassDef):
        annotated = [node for node in found.body if isinstance(node, ast.AnnAssign)]
        fields = [(node.target.id, node.value) for node in annotated if isinstance(node.target, ast.Name)]
        return Signature(
            [_parameter(field, value is not None) for field, value in fields], __validate_parameters__=False
        )
    positional = [*found.args.posonlyargs, *found.args.args]
    required = len(positional) - len(found.args.defaults)
    parameters = [_parameter(argument.arg, index >= required) for index, argument in enumerate(positional)]
    parameters += [
        Parameter(argument.arg, Parameter.KEYWORD_ONLY, default=Parameter.empty if default is None else None)
        for argument, default in zip(found.args.kwonlyargs, found.args.kw_defaults, strict=True)
    ]
    if parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    return Signature(parameters, __validate_parameters__=False)


def imports_from(source: str, package: str, absent: set[str]) -> Iterator[tuple[str, str]]:
    """What a module imports from the inside of a package when it is imported itself: (module, name), one by one.

    ``absent`` are conditions, as they stand in the source, that do not hold.
    """
    waiting: list[ast.stmt] = list(ast.parse(source).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If):
            waiting += node.orelse if ast.unparse(node.test) in absent else node.body
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            yield from ((str(node.module), alias.name) for alias in node.names)


def _parameter(name: str, optional: bool) -> Parameter:
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=None if optional else Parameter.empty)


@dataclass
class Declared:
    """Stands where a function of a CUDA package would: takes a call only as the package's own source declares it.

    ``hands_on`` are signatures of what the function passes its ``**kwargs`` to. ``calls`` keeps what it was told.
    """

    signature: Signature
    result: Any = None
    hands_on: list[Signature] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        further = {name for other in self.hands_on for name in other.parameters} - set(self.signature.parameters)
        own = {name: value for name, value in kwargs.items() if name not in further}
        self.signature.bind(*args, **own)  # raises TypeError on what is not declared
        self.calls.append(kwargs)
        return self.result
