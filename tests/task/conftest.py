"""Tasks of these tests, and the usual one again after each."""

import pytest

from kit.grading import gold_answer, is_correct, strict_answer
from kit.prompts import format_reply
from kit.task.task import DEFAULT, take_task


@pytest.fixture(autouse=True)
def the_usual_task_again():
    yield
    take_task(DEFAULT)


@pytest.fixture
def own(tmp_path):
    """Takes a task of this text."""

    def take(text, name="mine.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return take_task(str(tmp_path / name))

    return take


def said(answer):
    return format_reply("so it is", answer)


def is_right(answer, gold):
    return is_correct(strict_answer(said(answer)), gold_answer(gold))
