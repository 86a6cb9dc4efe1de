"""The task of this program: what is asked, in what form it is to be answered, what is right, and what that is worth.

A script takes one, before anything is read or asked.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from kit.answers.own import Own
from kit.cli.errors import UserError
from kit.grading import gold_answer, is_correct, strict_answer, use_answers
from kit.prompts import parse_reply, tags, use_form
from kit.settings.knobs import KNOBS, Settings
from kit.task.task_file import Task, read_task
from kit.task.worked_example import WorkedExample, read_worked_example

DEFAULT = str(KNOBS["task"].default)

_in_use: Task | None = None


def take_task(name: str) -> Task:
    """Have this program ask and judge as the task says that ``--task`` names.

    Raises:
        UserError: with all that is wrong with its file.
    """
    global _in_use
    task = read_task(name)
    use_form(task.form)
    use_answers(task.answers)
    _check_example(task)
    _in_use = task
    return task


def take_task_of(trained: dict[str, Any], run: Path | None = None) -> Task:
    """The task of a run.

    Args:
        trained: what its run.yaml says.
        run: its folder.

    Raises:
        UserError: it is not there any more, says something else by now, or is a program that came with the folder.
    """
    name = str(trained.get("settings", {}).get("task", DEFAULT))
    if run and name.endswith(".py") and run.resolve() in Path(name).resolve().parents:
        raise UserError(f"{name} is a program inside the run folder: read it, and if you trust it name it with --task")
    task = take_task(name)
    if not is_task_of(trained, task):
        raise UserError(
            f"{task.file} is another than it was in training: name the task that says what is right with --task FILE"
        )
    return task


def is_task_of(trained: dict[str, Any], task: Task) -> bool:
    """Is this the task of a run, by what its file says, wherever that lies? A newer kit may word its own otherwise.

    Args:
        trained: what its run.yaml says.
        task: a task.
    """
    name, source = trained.get("settings", {}).get("task", DEFAULT), trained.get("task", {}).get("source")
    is_its_name = Path(name).stem == task.name
    return source == task.source or (is_its_name and (source is None or task.is_the_kits_own))


def task_in_use() -> Task:
    """The task that was taken; before that, the default one."""
    return _in_use or take_task(DEFAULT)


def with_task(settings: Settings, task: Task) -> Settings:
    """The settings with what the task says and the user does not."""
    if missing := [tag for tag in tags() if tag not in settings.prompt()]:
        print(f"the system prompt does not show {' '.join(missing)}: the kit's own rewards and scores read these tags")
    return settings if "rewards" in settings.given else dataclasses.replace(settings, rewards=task.rewards)


def worked_example(settings: Settings) -> WorkedExample:
    """The example that the settings name, else the task's."""
    return read_worked_example(settings.worked_example) if settings.worked_example else task_in_use().example


def _check_example(task: Task) -> None:
    """Its reply must be in format and, where the right answer is known, right: else nobody could earn anything."""
    if not parse_reply(task.example.reply).soft or (answer := strict_answer(task.example.reply)) is None:
        raise UserError(
            f"--task {task.file}: the reply of its example does not hold {task.answers.wanted}, or is not in format:\n"
            f"{task.example.reply}"
        )
    gold = task.gold or ("" if isinstance(task.answers, Own) else parse_reply(task.example.reply).answer or "")
    try:
        if gold and not is_correct(answer, gold_answer(gold)):
            raise UserError(f"--task {task.file}: the answer of its example is not right, beside its gold {gold!r}")
    except ValueError as error:
        raise UserError(f"--task {task.file}: the gold of its example: {error}") from None
