"""The only verdict in the repository: which number did a reply give, and is it the right one?

Training (``rewards.py``) and evaluation (``evaluate.py``) both call this file, so that a score means the same thing
everywhere. Nothing is ever evaluated or executed, and every function takes time linear in the length of its text.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from kit.prompts import parse_reply

MAX_DIGITS = 100

_MINUS = "-\N{MINUS SIGN}"
# Letters of scripts that put a space between word and number; in the others (共18个) a word may touch its number.
_CASED = r"A-Za-zªµº\u00c0-\u024f\u0370-\u052f"
_INTEGER = "(?:[1-9][0-9]{0,2}(?:,[0-9]{3})++|[0-9]++)"
# A maximal run of digits and the marks inside numbers, well formed or not: "1,200.50" and "1/2", but also "1,20".
_RUN = re.compile(r"(?<![0-9.,/])[.,/]*+[0-9][0-9.,/]*+")
# A run that is a number. Every part is possessive or bounded, so a hostile text costs no more than its length.
_NUMBER = re.compile(
    rf"""
    (?<![0-9.,/]) (?P<before>[.,/]*+)             # punctuation before it, or the point of ".5"
    (?<![{_CASED}^√±]) (?<![{_CASED}0-9]_)        # no part of "x2", "H2O", "x_1", "√16"
    (?: (?P<over>{_INTEGER}) / (?=[0,]*[1-9]) (?P<under>{_INTEGER})
      | (?P<whole>{_INTEGER}) (?:\.(?P<part>[0-9]++))? )
    [.,/]*+ (?![0-9])                             # punctuation after it, and there the run ends
    (?! [eE][+{_MINUS}]?[0-9] | _[0-9] )          # not "1e5", not "1_000"
    (?! [\d⁰¹²³⁴-⁹₀-₉¼-¾⅐-↋] )                    # not "18²", not "1½"
    """,
    re.VERBOSE,
)
# What may stand directly before it: a sign and a currency sign, in either order ("-$4", "$-4", LaTeX's "\\$4").
_LEFT = re.compile(rf"([{_MINUS}+]?)([$€£¥₹₩₽¢\\]*)([{_MINUS}+]?)$")
_LOOSE_SIGN = re.compile(rf"[{_MINUS}+]\s+$")
_DIGIT = re.compile("[0-9]")
_LEFT_REACH = 8  # characters to the left that are looked at
_RIGHT_REACH = 3  # and to the right: the exponent of "1e-5"
_WINDOW = 4096  # characters that are searched at a time, from the end, for the last number


def read_number(text: str) -> Fraction | None:
    r"""The one number that ``text`` holds, as people read it, or ``None`` where there is none or more than one.

    >>> [str(read_number(text)) for text in ("$1,200.50", "18 apples.", "50%", r"\boxed{18}", "-4", "1/2")]
    ['2401/2', '18', '50', '18', '-4', '1/2']
    >>> [read_number(text) for text in ("12 or 13", "5 + 3", "", "1,20", "1e5", "1/0", "²")]
    [None, None, None, None, None, None, None]
    """
    if _has_foreign_digits(text):
        return None
    runs = _RUN.finditer(text)
    only = next(runs, None)
    if only is None or next(runs, None) is not None:
        return None
    number = _NUMBER.match(text, only.start())
    return _value(text, number, when_unclear=None) if number else None


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
    end = len(text)
    while end > 0:
        start = max(0, end - _WINDOW)
        while start > 0 and text[start - 1] in "0123456789.,/":  # do not cut a run in two
            start -= 1
        found = _NUMBER.finditer(text, start, end + _RIGHT_REACH) if _DIGIT.search(text, start, end) else ()
        for number in reversed([number for number in found if number.start() < end]):
            value = _value(text, number, when_unclear=1)
            if value is not None:
                return value
        end = start
    return None


@lru_cache(maxsize=10_000)  # a group shares its gold answer, and every reward asks again
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


def _value(text: str, number: re.Match[str], when_unclear: int | None) -> Fraction | None:
    """The value of a match of ``_NUMBER``, with its sign; ``None`` where it has too many digits.

    Where a plus or minus stands there but may be an operator, a hyphen or a bullet ("20-2", "- 4"), the sign is
    ``when_unclear``, or there is no number where that is ``None``.
    """
    if sum(map(str.isdigit, number[0])) > MAX_DIGITS:
        return None
    sign = _sign(text, number)
    if sign is None:
        sign = when_unclear
    return None if sign is None else sign * _unsigned(text, number)


def _unsigned(text: str, number: re.Match[str]) -> Fraction:
    if number["over"]:
        return Fraction(int(number["over"].replace(",", "")), int(number["under"].replace(",", "")))
    whole, part = number["whole"].replace(",", ""), number["part"] or ""
    if number["before"] == "." and not part and not text[max(0, number.start() - 1) : number.start()].isalpha():
        whole, part = "", whole  # ".5", but not the full stop of "Rs.5"
    return Fraction(int(whole + part), 10 ** len(part))


def _sign(text: str, number: re.Match[str]) -> int | None:
    """1 or -1, or ``None`` where it is in doubt."""
    start = number.start()
    context = text[max(0, start - _LEFT_REACH) : start]
    left = _LEFT.search(context)
    assert left is not None  # it matches the empty string
    sign = left[1] + left[3]
    if not sign:
        return None if _LOOSE_SIGN.search(context) else 1
    before = context[: left.start()][-1:]
    if len(sign) > 1 or before.isalnum() or (before and before in f"{_MINUS}+)"):
        return None
    return -1 if sign in _MINUS else 1


def _has_foreign_digits(text: str) -> bool:
    """Digits outside ASCII anywhere, except in a unit such as m²."""
    if text.isascii():
        return False
    return any(
        unicodedata.category(character).startswith("N") and not (character in "²³" and text[i - 1 : i].isalpha())
        for i, character in enumerate(text)
        if not character.isascii()
    )
