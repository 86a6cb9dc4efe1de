"""The only verdict in the repository: which answer did a reply give, and is it the right one?

Training (``rewards.py``) and evaluation (``evaluate.py``) both call this file, so that a score means the same thing
everywhere. What an answer is, a number or something else, is the task's to say: ``kit/answers`` has the kinds. A script
sets the kind once, before anything is read.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from kit.answers.kind import Answer, AnswerKind
from kit.answers.number import Number
from kit.numbers.reading import decimal_mark
from kit.prompts import parse_reply

_kind: AnswerKind = Number()


def use_answers(kind: AnswerKind) -> None:
    """Have all answers of this program read and judged as this kind."""
    global _kind
    _kind = kind


def answer_kind() -> AnswerKind:
    """The kind in use."""
    return _kind


def verdicts(reply: str, gold: str) -> dict[str, bool]:
    """All that is said of a reply: right by the strict XML reading, right by the flexible one, and in format.

    >>> verdicts("3 + 4 = 7", "7")
    {'strict': False, 'flexible': True, 'in_format': False}
    """
    right = gold_answer(gold)
    return {
        "strict": is_correct(strict_answer(reply), right),
        "flexible": is_correct(flexible_answer(reply), right),
        "in_format": parse_reply(reply).soft,
    }


def strict_answer(text: str) -> Any | None:
    """The answer in the answer block of a whole reply, or ``None``.

    There is one only where each tag stands exactly once and in order, after a reasoning block that says something.
    Text outside the blocks does not take it away (it costs format, see ``rewards.py``).

    >>> strict_answer("<reasoning>9 + 9</reasoning><answer>18</answer>")
    Fraction(18, 1)
    >>> strict_answer("<reasoning></reasoning><answer>18</answer>") is strict_answer("18") is None
    True
    """
    reply = parse_reply(text)
    return _kind.read(reply.answer) if reply.reasoned and reply.answer else None


def flexible_answer(text: str) -> Any | None:
    r"""The strict answer, else the one where the reply says that its answer is, else the one that it ends with.

    Of numbers: it says so with an answer block, a ``\boxed{}`` or GSM8K's ``####``, in this order of trust; else its
    last number. For evaluation only, never for a reward.

    It differs from lm-evaluation-harness's ``flexible-extract``, which takes the last match of
    ``(-?[$0-9.,]{2,})|(-?[0-9]+)`` and compares it as text: there "18 ... ok" gives "..", "$18.00" is not 18, "9{,}500"
    is 500 and "20-2" gives -2; here they give 18, 18, 9500 and 2. Where the number is not understood there is none.

    >>> flexible_answer("The answer is 18.")
    Fraction(18, 1)
    >>> flexible_answer(r"So she earns \boxed{18} dollars over the 7 days.")
    Fraction(18, 1)
    """
    answer = strict_answer(text)
    return _kind.find(text) if answer is None else answer


def gold_answer(text: str) -> Answer:
    r"""The right answer of a data set's row.

    >>> gold_answer("He has 9 + 9 = <<9+9=18>>18 eggs.\n#### 18")
    Fraction(18, 1)

    Raises:
        ValueError: there is none, or there are several.
    """
    return _gold_answer(_kind, text, decimal_mark())  # type: ignore[arg-type]  # kinds are frozen dataclasses


@lru_cache(maxsize=10_000)  # a group shares its gold answer, and every reward asks again
def _gold_answer(kind: AnswerKind, text: str, _mark: str) -> Answer:
    return kind.gold(text)


def is_correct(answer: Answer | None, gold: Answer) -> bool:
    """The kind's verdict; no answer is never right."""
    return answer is not None and _kind.is_right(answer, gold)
