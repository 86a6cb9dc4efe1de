"""The only verdict in the repository: which number did a reply give, and is it the right one?

Training (``rewards.py``) and evaluation (``evaluate.py``) both call this file, so that a score means the same thing
everywhere. Nothing is ever evaluated or executed, and every function takes time linear in the length of its text.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from kit.prompts import parse_reply

MAX_DIGITS = 100

_MINUS = "-\N{MINUS SIGN}"
# A maximal run of these is one candidate, well formed or not: "1,200.50" and "1/2", but also "1,20" and "1.2.3".
_RUN = re.compile(r"[0-9.,/]+")
_INTEGER = "(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = re.compile(rf"({_INTEGER})?(?:\.([0-9]+))?")
_RATIO = re.compile(rf"({_INTEGER})/({_INTEGER})")
# What may stand directly before the digits: a sign and a currency sign, in either order ("-$4", "$-4", LaTeX's "\$4").
_LEFT = re.compile(rf"([{_MINUS}+]?)([$€£¥₹₩₽¢\\]*)([{_MINUS}+]?)$")
_LOOSE_SIGN = re.compile(rf"[{_MINUS}+]\s+$")
_LEFT_REACH = 8  # characters to the left that are looked at, which keeps the time linear


def read_number(text: str) -> Fraction | None:
    r"""The one number that ``text`` holds, as people read it, or ``None`` where there is none or more than one.

    >>> [str(read_number(text)) for text in ("$1,200.50", "18 apples.", "50%", r"\boxed{18}", "-4", "1/2")]
    ['2401/2', '18', '50', '18', '-4', '1/2']
    >>> [read_number(text) for text in ("12 or 13", "5 + 3", "", "1,20", "1e5", "1/0", "²")]
    [None, None, None, None, None, None, None]
    """
    if _has_foreign_digits(text):
        return None
    found = _candidates(text)
    only = next(found, None)
    if only is None or next(found, None) is not None:
        return None
    return only.value if only.clear else None


def strict_answer(text: str) -> Fraction | None:
    """The number in the ``<answer>`` block of a whole reply, or ``None``.

    There is one only where each tag stands exactly once and in order, after a reasoning block that is not empty.
    Text outside the blocks does not take it away (it costs format, see ``rewards.py``).

    >>> strict_answer("<reasoning>9 + 9</reasoning><answer>18</answer>")
    Fraction(18, 1)
    >>> strict_answer("<reasoning></reasoning><answer>18</answer>") is strict_answer("18") is None
    True
    """
    reply = parse_reply(text)
    return read_number(reply.answer) if reply.reasoning and reply.answer else None


def flexible_answer(text: str) -> Fraction | None:
    """The strict answer, else the last number anywhere in the reply. For evaluation only, never for a reward.

    It differs from lm-evaluation-harness's ``flexible-extract``, which takes the last match of
    ``(-?[$0-9.,]{2,})|(-?[0-9]+)`` and compares it as text: there "18 ... ok" gives "..", "$18.00" is not 18 and
    "20-2" gives -2; here they give 18, 18 and 2. And where a reply has an ``<answer>`` block with one number, that
    number counts, not one that happens to follow it.

    >>> flexible_answer("The answer is 18.")
    Fraction(18, 1)
    """
    answer = strict_answer(text)
    if answer is not None:
        return answer
    numbers = (candidate.value for candidate in _candidates(text) if candidate.value is not None)
    return next(iter(deque(numbers, maxlen=1)), None)


def gold_answer(text: str) -> Fraction:
    """The right answer of a data set's row: what follows ``####`` in GSM8K's form, else the whole of a plain column.

    >>> gold_answer("He has 9 + 9 = <<9+9=18>>18 eggs.\\n#### 18")
    Fraction(18, 1)

    Raises:
        ValueError: there is not exactly one number.
    """
    wanted = text.rsplit("####", 1)[-1].strip()
    number = read_number(wanted)
    if number is None:
        raise ValueError(f"no single number in the answer {wanted[:80]!r}")
    return number


def is_correct(answer: Fraction | None, gold: Fraction) -> bool:
    """Exact, rational equality; no answer is never right."""
    return answer is not None and answer == gold


class Candidate(NamedTuple):
    """A run of digits in a text.

    ``value`` is ``None`` where the run is no number ("1,20", "1/0", "x2"). ``clear`` says whether its sign is beyond
    doubt; "20-2" and "- 4" could be an operator, a hyphen or a bullet, and then ``value`` is unsigned.
    """

    value: Fraction | None
    clear: bool = True


def _candidates(text: str) -> Iterator[Candidate]:
    for run in _RUN.finditer(text):
        start, end = run.span()
        while end > start and text[end - 1] in ".,/":  # punctuation after the number
            end -= 1
        while start < end and (text[start] in ",/" or (text[start] == "." and text[start - 1 : start].isalpha())):
            start += 1  # punctuation before it
        if start < end:
            yield _candidate(text, start, end)


def _candidate(text: str, start: int, end: int) -> Candidate:
    """Read the run ``text[start:end]`` together with what stands directly before and after it."""
    value = _unsigned(text[start:end])
    context = text[max(0, start - _LEFT_REACH) : start]
    left = _LEFT.search(context)
    assert left is not None  # it matches the empty string
    before = context[: left.start()][-1:]
    sign = left[1] + left[3]
    if value is None or _is_digit_like(text[end : end + 1]) or _is_digit_like(before):
        return Candidate(None)
    if not left[0] and (_is_cased_letter(before) or before in "_^√±" and before):
        return Candidate(None)  # "x2", "1e5", "H2O", "x_1"
    if not sign:
        return Candidate(value, clear=not _LOOSE_SIGN.search(context))
    if len(sign) > 1 or before.isalnum() or before and before in f"{_MINUS}+)":
        return Candidate(value, clear=False)
    return Candidate(-value if sign in _MINUS else value)


def _unsigned(run: str) -> Fraction | None:
    """The value of digits with correct thousands commas, a decimal point, or one fraction bar."""
    if len(run) > 2 * MAX_DIGITS or sum(map(str.isdigit, run)) > MAX_DIGITS:
        return None
    if ratio := _RATIO.fullmatch(run):
        over, under = (int(part.replace(",", "")) for part in ratio.groups())
        return Fraction(over, under) if under else None
    if decimal := _DECIMAL.fullmatch(run):
        whole, part = decimal[1] or "", decimal[2] or ""
        return Fraction(int(whole.replace(",", "") + part), 10 ** len(part))
    return None


def _is_digit_like(character: str) -> bool:
    """A digit, superscript, fraction or Roman numeral outside ASCII."""
    return bool(character) and not character.isascii() and unicodedata.category(character).startswith("N")


def _is_cased_letter(character: str) -> bool:
    """Latin, Greek or Cyrillic; scripts without case put no space between word and number."""
    return character.isalpha() and unicodedata.category(character) != "Lo"


def _has_foreign_digits(text: str) -> bool:
    """Digits outside ASCII anywhere, except in a unit such as m²."""
    if text.isascii():
        return False
    return any(
        _is_digit_like(character) and not (character in "²³" and _is_cased_letter(text[i - 1 : i]))
        for i, character in enumerate(text)
    )
