"""The only verdict in the repository: which number did a reply give, and is it the right one?

Training (``rewards.py``) and evaluation (``evaluate.py``) both call this file, so that a score means the same thing
everywhere. What counts as a number, and how it is read, is in ``kit/numbers/reading.py``.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from kit.numbers.latex import boxes
from kit.numbers.reading import DECIMAL_MARKS, decimal_mark, first_number, last_number, read_number
from kit.prompts import ANSWER_CLOSE, ANSWER_OPEN, parse_reply

# GSM8K's form: a number directly after ####, which no heading such as "#### Step 2" or "#### 2. Add" has.
_HASHES = re.compile(r"(?<!#)####(?P<answer>[^\w\n#]*+[0-9](?![0-9]*+[.)][ \t]+\w).*)")


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


def strict_answer(text: str) -> Fraction | None:
    """The number in the ``<answer>`` block of a whole reply, or ``None``.

    There is one only where each tag stands exactly once and in order, after a reasoning block that says something.
    Text outside the blocks does not take it away (it costs format, see ``rewards.py``).

    >>> strict_answer("<reasoning>9 + 9</reasoning><answer>18</answer>")
    Fraction(18, 1)
    >>> strict_answer("<reasoning></reasoning><answer>18</answer>") is strict_answer("18") is None
    True
    """
    reply = parse_reply(text)
    return read_number(reply.answer) if reply.reasoned and reply.answer else None


def flexible_answer(text: str) -> Fraction | None:
    r"""The strict answer, else the number where the reply says that its answer is, else its last number.

    It says so with an ``<answer>`` block, a ``\boxed{}`` or GSM8K's ``####``, in this order of trust. What follows,
    such as another question with its answer, does not count then. For evaluation only, never for a reward.

    It differs from lm-evaluation-harness's ``flexible-extract``, which takes the last match of
    ``(-?[$0-9.,]{2,})|(-?[0-9]+)`` and compares it as text: there "18 ... ok" gives "..", "$18.00" is not 18, "9{,}500"
    is 500 and "20-2" gives -2; here they give 18, 18, 9500 and 2. Where the number is not understood there is none.

    >>> flexible_answer("The answer is 18.")
    Fraction(18, 1)
    >>> flexible_answer(r"So she earns \boxed{18} dollars over the 7 days.")
    Fraction(18, 1)
    """
    answer = strict_answer(text)
    if answer is not None:
        return answer
    for place in (_lone_block, _box):
        found = place(text)
        if found and any(map(str.isdigit, found)):
            text = found
    hashes = _HASHES.search(text)
    return first_number(hashes["answer"]) if hashes else last_number(text)


def gold_answer(text: str) -> Fraction:
    r"""The right answer of a data set's row: what follows ``####`` in GSM8K's form, what the last ``\boxed{}`` holds in
    that of a written solution, else the whole of a plain column.

    >>> gold_answer("He has 9 + 9 = <<9+9=18>>18 eggs.\n#### 18")
    Fraction(18, 1)

    Raises:
        ValueError: there is not exactly one number.
    """
    return _gold_answer(text, decimal_mark())


@lru_cache(maxsize=10_000)  # a group shares its gold answer, and every reward asks again
def _gold_answer(text: str, mark: str) -> Fraction:
    wanted = _wanted(text)
    number = read_number(wanted, mark)
    if number is None:
        raise ValueError(f"no single number in the answer {wanted.strip()[:80]!r}{other_mark(wanted, mark)}")
    return number


def other_mark(text: str, mark: str | None = None) -> str:
    """A hint where ``text`` is no number with the decimal mark, the program's or ``mark``, but is one with the other.

    >>> other_mark("3,5")
    ', but it is 7/2 with a decimal comma: --decimal-mark comma reads it so'
    """
    (other,) = set(DECIMAL_MARKS) - {mark or decimal_mark()}
    number = read_number(text, other)
    return "" if number is None else f", but it is {number} with a decimal {other}: --decimal-mark {other} reads it so"


def doubtful_mark(golds: list[str]) -> str | None:
    """A sentence where the golds look as if they were written with the other decimal mark, else ``None``.

    They do where some are, say, "1.200" (one to three digits, the mark, three digits) and all others whole.

    >>> print(doubtful_mark(["#### 18", "#### 1.200"]))
    of 2 answers, 1 may be thousands, such as '1.200', which is read as 6/5: if it is, add --decimal-mark comma
    """
    mark = decimal_mark()
    (other,) = set(DECIMAL_MARKS) - {mark}
    written = re.compile(
        rf"(?<![0-9.,])[1-9][0-9]{{0,2}}[{'.' if mark == 'point' else ','}][0-9]{{3}}(?![0-9.,]*[0-9])"
    )
    doubtful = [match[0] for gold in golds if (match := written.search(_wanted(gold)))]
    whole = sum(gold_answer(gold).denominator == 1 for gold in golds if not written.search(_wanted(gold)))
    if not doubtful or whole < len(golds) - len(doubtful):
        return None
    return (
        f"of {len(golds)} answers, {len(doubtful)} may be thousands, such as {doubtful[0]!r}, which is read as "
        f"{read_number(doubtful[0])}: if it is, add --decimal-mark {other}"
    )


def is_correct(answer: Fraction | None, gold: Fraction) -> bool:
    """Exact, rational equality; no answer is never right."""
    return answer is not None and answer == gold


def _wanted(text: str) -> str:
    """The part of a row's answer that holds the number."""
    _, hashes, wanted = text.rpartition("####")
    return wanted if hashes else [text, *boxes(text)][-1]


def _lone_block(text: str) -> str | None:
    """What stands in the ``<answer>`` block, where there is just one, whatever else the reply holds."""
    if text.count(ANSWER_OPEN) != 1 or text.count(ANSWER_CLOSE) != 1:
        return None
    return text.partition(ANSWER_OPEN)[2].partition(ANSWER_CLOSE)[0]


def _box(text: str) -> str | None:
    """What stands in the ``\\boxed{}``, where there is just one, or where all hold the same number."""
    found = boxes(text)
    return found[-1] if found and len({last_number(box) for box in found}) == 1 else None
