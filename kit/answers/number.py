"""Numbers: the answers of GSM8K. What counts as one, and how it is read, is in ``kit/numbers/reading.py``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact
from fractions import Fraction

from kit.answers.kind import AnswerKind
from kit.answers.places import box, in_gold
from kit.numbers.reading import DECIMAL_MARKS, decimal_mark, first_number, last_number, read_number, with_mark
from kit.prompts import lone_answer_block

# GSM8K's form: a number directly after ####, which no heading such as "#### Step 2" or "#### 2. Add" has.
_HASHES = re.compile(r"(?<!#)####(?P<answer>[^\w\n#]*+[0-9](?![0-9]*+[.)][ \t]+\w).*)")


@dataclass(frozen=True)
class Number(AnswerKind):
    """Exact, rational equality."""

    @property
    def wanted(self) -> str:
        return "exactly one number"

    def read(self, block: str) -> Fraction | None:
        """The one number of a block."""
        return read_number(block)

    def find(self, text: str) -> Fraction | None:
        r"""The number where the reply says that its answer is, else its last number.

        It says so with an answer block, a ``\boxed{}`` or GSM8K's ``####``, in this order of trust. What follows, such
        as another question with its answer, does not count then.
        """
        for place in (lone_answer_block, _same_box):
            found = place(text)
            if found and any(map(str.isdigit, found)):
                text = found
        hashes = _HASHES.search(text)
        return first_number(hashes["answer"]) if hashes else last_number(text)

    def gold(self, text: str) -> Fraction:
        """The one number of the part that says it."""
        wanted = in_gold(text)
        number = read_number(wanted)
        if number is None:
            raise ValueError(f"no single number in the answer {wanted.strip()[:80]!r}{other_mark(wanted)}")
        return number

    def gold_text(self, text: str) -> str:
        """In the decimal mark of the data: a decimal where that is exact, else a fraction.

        >>> [Number().gold_text(text) for text in ("#### 7", "18.50 kg", "-1/3", "$1,200")]
        ['7', '18.5', '-1/3', '1200']
        """
        gold = self.gold(text)
        try:
            decimal = Context(prec=400, traps=[Inexact]).divide(Decimal(gold.numerator), Decimal(gold.denominator))
        except Inexact:
            return str(gold)
        return with_mark(f"{decimal:f}")

    def doubt(self, golds: list[str]) -> str | None:
        """A sentence where the golds look as if they were written with the other decimal mark, else ``None``.

        They do where some are, say, "1.200" (one to three digits, the mark, three digits) and none has other decimals.

        >>> print(Number().doubt(["#### 18", "#### 1.200"]))
        of 2 answers, 1 may be thousands, such as '1.200', which is read as 6/5: if it is, add --decimal-mark comma
        """
        mark = decimal_mark()
        (other,) = set(DECIMAL_MARKS) - {mark}
        sign = "." if mark == "point" else ","
        written = re.compile(rf"(?<![0-9.,])[1-9][0-9]{{0,2}}[{sign}][0-9]{{3}}(?![0-9.,]*[0-9])")
        wanted = [in_gold(gold) for gold in golds]
        doubtful = [match[0] for text in wanted if (match := written.search(text))]
        if not doubtful or any(re.search(f"[{sign}][0-9]", text) for text in wanted if not written.search(text)):
            return None
        return (
            f"of {len(golds)} answers, {len(doubtful)} may be thousands, such as {doubtful[0]!r}, which is read as "
            f"{read_number(doubtful[0])}: if it is, add --decimal-mark {other}"
        )


def other_mark(text: str) -> str:
    """A hint where ``text`` is no number with the decimal mark in use, but is one with the other.

    >>> other_mark("3,5")
    ', but it is 7/2 with a decimal comma: --decimal-mark comma reads it so'
    """
    (other,) = set(DECIMAL_MARKS) - {decimal_mark()}
    number = read_number(text, other)
    return "" if number is None else f", but it is {number} with a decimal {other}: --decimal-mark {other} reads it so"


def _same_box(text: str) -> str | None:
    return box(text, last_number)
