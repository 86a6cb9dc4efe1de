"""Reward functions from a user's own file, in all forms that TRL takes, and a guard against those that break."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.task.reward_imports import lacking_packages
from kit.task.reward_source import source_hash
from kit.task.user_code import run_file

RewardFunction = Callable[..., Sequence[float | None]]
_SHOWN = 300  # characters of a reply in a message
INSTALL = "install that beside the kit's packages, or copy it beside the file if it is your own"


class Reward:
    """A reward function under the name that the user chose it by, checked at each call.

    A call gives one finite number or ``None`` for each completion, whether the function returns a list, an array, a
    tensor, or something to be awaited.

    Args:
        function: anything that can be called with keyword arguments.
        name: what it is called in the logs and in run.yaml.
        file: that it is from; ``None`` for the kit's own.
        source: a hash of what it is made of; ``None`` for the kit's own.
        maximum: the most that it can pay, where that is known.

    Raises:
        UserError: (a call) with the function's name, and the reply that broke it where others do not.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        file: str | None = None,
        source: str | None = None,
        maximum: float | None = None,
    ) -> None:
        self.function, self.__name__, self.file, self.source, self.maximum = function, name, file, source, maximum

    def __call__(self, /, *, completions: list[Any], **columns: Any) -> list[float | None]:
        if isinstance(problem := _call(self.function, completions, columns), str):
            raise UserError(f"reward {self.__name__} {_blame(self.function, completions, columns, problem)}")
        return problem

    def lacks(self) -> list[str]:
        """The packages that its function imports when it is called and that are not there; it is not called."""
        name = self.__name__.rpartition(".")[2]  # of two with one name the file's is put before it
        return lacking_packages(Path(self.file), name) if self.file else []

    def required(self) -> list[str]:
        """The arguments that it cannot be called without."""
        return [
            name
            for name, parameter in (_parameters(self.function) or {}).items()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]


Rewards = tuple[list[Reward], list[float]]  # with their weights


def maxima(rewards: Sequence[Reward]) -> dict[str, float]:
    """The most that each function can pay, before its weight: 1 for the kit's own, for a user's its ``maximum`` if it
    has that attribute. A function that pays more raises an alarm."""
    return {reward.__name__: reward.maximum for reward in rewards if reward.maximum is not None}


def load_reward(file: str, name: str) -> Reward:
    """The function ``name`` of the Python file ``file``. The file is run: it is the user's own code.

    Raises:
        UserError: the file is missing or fails, has no such function, or one that no trainer could call.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--rewards: {file} does not exist, name a Python file that holds {name}")
    try:
        module = run_file(path)
    except (Exception, SystemExit) as error:
        raise UserError(f"--rewards: {file} cannot be loaded ({type(error).__name__}: {error}), mend it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"--rewards: {file} has no function {name!r}, define it or name another")
    if inspect.isclass(function):
        raise UserError(f"--rewards: {name} of {file} is a class, name an object of it: mine = {name}(...)")
    if (parameters := _parameters(function)) is not None:
        kinds = {parameter.kind for parameter in parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            raise UserError(
                f"--rewards: {name} of {file} cannot take all that the trainer passes, add **kwargs to its arguments"
            )
        if inspect.Parameter.POSITIONAL_ONLY in kinds:
            raise UserError(
                f"--rewards: {name} of {file} takes arguments by position alone, and the trainer passes all by name: "
                "take the / out of its arguments"
            )
    maximum = getattr(function, "maximum", None)
    try:
        most = None if maximum is None or callable(maximum) else float(maximum)
    except (TypeError, ValueError):
        raise UserError(f"--rewards: {name}.maximum of {file} is {maximum!r:.40}: make it a number") from None
    return Reward(function, name, file, source_hash(path, name), most)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some that are written in C do not say
        return None


def _call(function: Callable[..., Any], completions: list[Any], columns: dict[str, Any]) -> list[float | None] | str:
    """The rewards, or in words what is wrong with them."""
    try:
        results = function(completions=completions, **columns)
        if inspect.isawaitable(results):
            results = _event_loop().run_until_complete(_awaited(results))
    except Exception as error:
        return f"raised {type(error).__name__}: {error}{_where(error)}"
    if results is None:
        return "returned None: is a return missing?"
    if hasattr(results, "tolist"):  # arrays and tensors, also on a card
        results = results.tolist()
    if isinstance(results, (str, bytes, dict, set)) or not hasattr(results, "__iter__"):
        return f"returned {_shown(results)}, which is no list of numbers"
    results = list(results)
    if len(results) != len(completions):
        return f"returned {len(results)} rewards for {len(completions)} completions"
    try:
        return [None if result is None else _number(result) for result in results]
    except ValueError as error:
        return str(error)


def _where(error: Exception) -> str:
    """The line of the user's own code that it came from, where it came from any."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not re.search(r"site-packages|/lib/python\d|^<", frame.filename)
    ]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


async def _awaited(results: Any) -> Any:
    return await results


@functools.cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """One for all calls: clients that a user's file keeps open belong to the loop that they were first used in."""
    return asyncio.new_event_loop()


def _number(result: Any) -> float:
    try:
        if not isinstance(result, (str, bytes)) and math.isfinite(number := float(result)):
            return number
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: a tensor of several numbers
        pass
    raise ValueError(f"returned {_shown(result)}, which is no number")


def _blame(function: Callable[..., Any], completions: list[Any], columns: dict[str, Any], problem: str) -> str:
    """What is wrong, with the first reply that breaks the function by itself, if not all do."""
    per_reply = {
        name for name, column in columns.items() if isinstance(column, list) and len(column) == len(completions)
    }
    broken: tuple[str, Any] | None = None
    works = False
    for index, completion in enumerate(completions):
        alone = {name: [column[index]] if name in per_reply else column for name, column in columns.items()}
        if not isinstance(found := _call(function, [completion], alone), str):
            works = True
        elif broken is None:
            broken = found, completion
        if broken and works:
            said, reply = broken
            text = reply if isinstance(reply, str) else reply[-1]["content"]
            return f"{said}; mend it. The reply that broke it: {text[:_SHOWN]!r}"
    if problem.startswith("raised ModuleNotFoundError"):
        return f"{problem}; {INSTALL}"
    tail = "" if problem.startswith("raised") else ": it must return one number for each completion"
    return f"{problem}; mend it{tail}"


def _shown(value: Any) -> str:
    return repr(value)[:_SHOWN]
