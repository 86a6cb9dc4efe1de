"""What a reply is worth: the XML reward functions, in TRL's shape.

    from rewards import REWARDS, DEFAULT_WEIGHTS

Each function takes ``completions`` (texts, or conversations of which the last message counts) and the data set's
columns, and returns one number from 0 to 1 per completion; TRL multiplies it with its weight. They are pure: the
same reply always scores the same, whatever else is in the batch. How numbers are read and judged is decided in
``kit/grading.py``, which the evaluation uses too.
"""

from __future__ import annotations

from collections.abc import Callable

from kit.errors import UserError
from kit.grading import gold_answer, is_correct, strict_answer
from kit.prompts import TAGS, parse_reply

Completion = str | list[dict[str, str]]


def correctness(completions: list[Completion], answer: list[str], **columns) -> list[float]:
    """1 where the number in the ``<answer>`` block equals the gold answer, after a reasoning block that says something.

    >>> good = "<reasoning>9 + 9 = 18</reasoning><answer>$18.00</answer>"
    >>> correctness([good, "<answer>18</answer>", good], answer=["#### 18", "18", "19"])
    [1.0, 0.0, 0.0]
    """
    replies = zip(completions, answer, strict=True)
    return [float(is_correct(strict_answer(_text(reply)), gold_answer(gold))) for reply, gold in replies]


def integer(completions: list[Completion], **columns) -> list[float]:
    """1 where the value in the ``<answer>`` block is a whole number, however it is written.

    >>> blocks = ("18", "18.00", "4/2", "1/2", "eighteen")
    >>> integer([f"<reasoning>so</reasoning><answer>{block}</answer>" for block in blocks])
    [1.0, 1.0, 1.0, 0.0, 0.0]
    """
    answers = [strict_answer(_text(reply)) for reply in completions]
    return [float(number is not None and number.denominator == 1) for number in answers]


def strict_format(completions: list[Completion], **columns) -> list[float]:
    r"""1 where the reply is well formed and its tags stand on lines of their own, as the system prompt shows.

    >>> strict_format(["<reasoning>\nso\n</reasoning>\n<answer>\n18\n</answer>\n",
    ...                "<reasoning>so</reasoning><answer>18</answer>"])
    [1.0, 0.0]
    """
    return [float(parse_reply(_text(reply)).strict) for reply in completions]


def soft_format(completions: list[Completion], **columns) -> list[float]:
    """1 where the reply is well formed: both blocks, in order, with something in them and nothing around them.

    >>> soft_format(["<reasoning>so</reasoning> <answer>18</answer>", "Sure! <reasoning>so</reasoning><answer>18</answer>"])
    [1.0, 0.0]
    """
    return [float(parse_reply(_text(reply)).soft) for reply in completions]


def xml_count(completions: list[Completion], **columns) -> list[float]:
    """A quarter for each of the four tags that stands exactly once: a first step for a model that knows no format yet.

    >>> xml_count(["<reasoning>so</reasoning>", "<answer>18</answer><answer>", "18"])
    [0.5, 0.25, 0.0]
    """
    return [parse_reply(_text(reply)).single_tags / len(TAGS) for reply in completions]


REWARDS = {function.__name__: function for function in (correctness, integer, strict_format, soft_format, xml_count)}
# A correct, strictly formed reply with a whole-number answer earns 4.0, the most there is.
DEFAULT_WEIGHTS = {"correctness": 2.0, "integer": 0.5, "strict_format": 0.5, "soft_format": 0.5, "xml_count": 0.5}


def choose(wanted: str) -> tuple[list[Callable[..., list[float]]], list[float]]:
    """The functions and weights that ``--rewards`` names, as in ``correctness:2,soft_format:0.5``.

    Raises:
        UserError: a name is unknown or a weight is no number.
    """
    functions, weights, problems = [], [], []
    for part in wanted.split(","):
        name, colon, weight = part.strip().partition(":")
        if name not in REWARDS:
            problems.append(f"--rewards: there is no {name!r}, choose from {', '.join(REWARDS)}")
            continue
        try:
            weights.append(float(weight) if colon else DEFAULT_WEIGHTS[name])
        except ValueError:
            problems.append(f"--rewards: the weight {weight!r} of {name} is no number, write it as in {name}:2")
        functions.append(REWARDS[name])
    if problems:
        raise UserError(*problems)
    return functions, weights


def total(reply: Completion, answer: str) -> float:
    r"""The weighted sum of all five rewards for one reply.

    >>> total("<reasoning>\n9 + 9 = 18\n</reasoning>\n<answer>\n18\n</answer>", "18")
    4.0
    >>> total("18", "18")
    0.0
    """
    return sum(DEFAULT_WEIGHTS[name] * REWARDS[name]([reply], answer=[answer])[0] for name in DEFAULT_WEIGHTS)


def _text(completion: Completion) -> str:
    """The text of a completion, which TRL passes as a string or as the messages of a conversation."""
    return completion if isinstance(completion, str) else completion[-1]["content"]
