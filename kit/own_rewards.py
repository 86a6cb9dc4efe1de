"""Reward functions from a user's own file, and a guard that stops the run at the first reply that breaks one."""

from __future__ import annotations

import functools
import importlib.util
import math
import numbers
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kit.errors import UserError

RewardFunction = Callable[..., Sequence[float | None]]
_SHOWN = 300  # characters of a reply in a message


def load_function(file: str, name: str) -> RewardFunction:
    """The function ``name`` of the Python file ``file``. The file is run: it is the user's own code.

    Raises:
        UserError: the file is missing or fails, or has no such function.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--rewards: {file} does not exist, name a Python file that holds {name}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"--rewards: {file} cannot be loaded ({type(error).__name__}: {error}), mend it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"--rewards: {file} has no function {name!r}, define it or name another")
    return function


def guarded(function: RewardFunction) -> RewardFunction:
    """``function``, checked at each call: one finite number or ``None`` for each completion, and no exception.

    Raises:
        UserError: with the function's name and the reply that broke it.
    """

    @functools.wraps(function)
    def checked(*, completions: list[Any], **columns: Any) -> list[float | None]:
        if isinstance(problem := _call(function, completions, columns), str):
            raise UserError(_blame(function, completions, columns, problem))
        return problem

    return checked


def _call(function: RewardFunction, completions: list[Any], columns: dict[str, Any]) -> list[float | None] | str:
    """The rewards, or in words what is wrong with them."""
    try:
        results = list(function(completions=completions, **columns))
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    if len(results) != len(completions):
        return f"returned {len(results)} rewards for {len(completions)} completions"
    for result in results:
        if result is not None and not (isinstance(result, numbers.Real) and math.isfinite(result)):
            return f"returned {result!r}, which is no number"
    return [None if result is None else float(result) for result in results]


def _blame(function: RewardFunction, completions: list[Any], columns: dict[str, Any], problem: str) -> str:
    """The message for a broken call: the first reply that breaks the function by itself, if one does."""
    per_reply = {
        name for name, column in columns.items() if isinstance(column, list) and len(column) == len(completions)
    }
    for index, completion in enumerate(completions):
        alone = {name: [column[index]] if name in per_reply else column for name, column in columns.items()}
        if isinstance(found := _call(function, [completion], alone), str):
            text = completion if isinstance(completion, str) else completion[-1]["content"]
            return f"reward {function.__name__} {found}; mend it. The reply that broke it: {text[:_SHOWN]!r}"
    return f"reward {function.__name__} {problem}; it must return one number for each completion"
