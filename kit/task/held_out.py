"""Questions that are set aside: they are answered now and then while training goes on, and never trained on."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

from kit.cli.errors import UserError
from kit.settings.knobs import Settings
from kit.task.questions import Row

FEWEST = 20  # fewer say nothing of a run: each is worth five points


def held_out_count(settings: Settings, questions: int) -> int:
    """How many of so many questions are set aside: what the user says, else the default or a tenth, the smaller.

    Raises:
        UserError: none would be left to train on.
    """
    wanted = settings.eval_questions
    if "eval_questions" not in settings.given:
        tenth = questions // 10
        return min(wanted, tenth) if tenth >= FEWEST else 0
    if questions and wanted >= questions:
        raise UserError(
            f"--eval-questions {wanted} of the {questions} questions in --dataset {settings.dataset} leaves none to "
            f"train on: set fewer aside, such as {questions // 10}"
        )
    return wanted


def with_held_out(settings: Settings, questions: int) -> Settings:
    """The settings with the number of questions that are set aside, as a continued run finds it recorded."""
    count = held_out_count(settings, questions)
    if count:
        print(f"{count} of {questions} questions are set aside, to see what the training does to the model's answers")
    elif "eval_questions" not in settings.given and settings.eval_questions and questions >= 2 * FEWEST:
        print(
            f"none of {questions} questions is set aside (below {10 * FEWEST}), so that nothing will say whether the "
            f"answers get better, and no best step is kept: --eval-questions {max(FEWEST, questions // 5)} sets some"
        )
    return dataclasses.replace(settings, eval_questions=count)


def set_aside(questions: list[Row], count: int, seed: int) -> tuple[list[Row], list[Row]]:
    """Those that are trained on, and the ``count`` others, fewer than all; both keep their order.

    A question that stands more than once is on one side only, so that some fewer than ``count`` may be set aside: this
    is said. What every question has, the other side never gets.

    >>> rows = [{"question": text, "answer": "1"} for text in "aabbcc"]
    >>> [len(part) for part in set_aside(rows, 3, seed=1)]
    3 questions are wanted aside and 2 are: each of these stands more than once, and stays on one side
    [4, 2]
    """
    times = Counter(str(row["question"]) for row in questions)
    apart: set[str] = set()
    room = count
    for text in random.Random(seed).sample(list(times), min(count, len(times))):
        if times[text] <= room:
            apart.add(text)
            room -= times[text]
    if room:
        print(
            f"{count} questions are wanted aside and {count - room} are: each of these stands more than once, and "
            "stays on one side"
        )
    return (
        [row for row in questions if str(row["question"]) not in apart],
        [row for row in questions if str(row["question"]) in apart],
    )
