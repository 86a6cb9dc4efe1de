"""What reward functions receive of the data: every column, and what the kit made of question and answer."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from kit.cli.errors import UserError
from kit.task.questions import Row
from kit.task.user_rewards import INSTALL, Reward, RewardFunction

# What the trainer itself passes; a column of such a name cannot come through.
_OF_THE_TRAINER = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")


def reward_columns(questions: Sequence[Row]) -> dict[str, list[Any]]:
    """The columns by their names, each with a value for every question; ``None`` where a row lacks it.

    ``question`` is the text that is asked and ``answer`` the checked value as a text (``7`` where GSM8K has a solution
    that ends in ``#### 7``), whatever the data set calls them. ``solution`` is the untouched text of the answer, unless
    the data have a column of that name.
    """
    names = dict.fromkeys(name for row in questions for name in row["columns"] if name not in _OF_THE_TRAINER)
    columns = {"solution": [row["answer"] for row in questions]}
    columns |= {name: [row["columns"].get(name) for row in questions] for name in names}
    return columns | {
        "question": [row["question"] for row in questions],
        "answer": [row["gold"] for row in questions],
    }


def with_columns(function: RewardFunction, questions: Sequence[Row]) -> RewardFunction:
    """``function`` for a trainer that passes, as ``row``, which of the ``questions`` each completion answers.

    The columns stay out of the trainer's data set, which would take some names for its own (``image``, ``tools``) and
    wants values of one type in a column.
    """
    columns = reward_columns(questions)

    @functools.wraps(function)
    def called(*, row: list[int], **of_the_trainer: Any) -> Any:
        return function(
            **of_the_trainer, **{name: [values[index] for index in row] for name, values in columns.items()}
        )

    return called


def check_arguments(rewards: Iterable[Reward], questions: Sequence[Row]) -> None:
    """Refuse a function that wants an argument which neither the data nor the trainer has, or a package that is not
    installed. None is called: it may count its calls, or cost something.

    Args:
        rewards: the functions.
        questions: the rows, at least one.

    Raises:
        UserError: naming the columns that there are, or the package.
    """
    columns = reward_columns(questions)
    problems = []
    for reward in rewards:
        lacking = [name for name in reward.required() if name not in (*columns, *_OF_THE_TRAINER)]
        if lacking:
            problems.append(
                f"--rewards: {reward.__name__} wants {' and '.join(map(repr, lacking))}, which the data lack: there "
                f"are {', '.join(map(str, columns))}"
            )
        problems += [
            f"--rewards: {reward.__name__} imports {package}, which is not there: {INSTALL}"
            for package in reward.lacks()
        ]
    if problems:
        raise UserError(*problems)
