r"""The numbers in a text, read as people read them. ``kit/grading.py`` decides which of them is the answer.

The law: a run of digits that belongs to a larger whole is never taken alone, and what is not understood is no number.
"9,500" is never 500, "√16" never 16, "7:00" never 0; "5 million" is 5,000,000, and "5 dozen" nothing that can be read.

Nothing is ever evaluated, and every function takes time linear in the length of its text. That is why math-verify,
which reads far more of LaTeX, is not used: it takes some hundred times as long, gives up by a timer (so that a verdict
would depend on the machine), reckons what it reads (a model could leave the sum undone), and takes ``12 or 13`` for an
answer. What a right answer to a word problem looks like, ``kit/numbers/latex.py`` rewrites in one pass.

The decimal mark is one for the whole program, set once when a script starts (``use_decimal_mark``): training, rewards
and evaluation all ask here, so they cannot read the same text differently.
"""

from __future__ import annotations

import html
import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

from kit.numbers.latex import EDGE, UNKNOWN, plain
from kit.numbers.neighbours import Sign, look_around

MAX_DIGITS = 100
DECIMAL_MARKS = ("point", "comma")

_decimal_mark = "point"
_SWAPPED = str.maketrans(",.", ".,")

# What people see alike becomes alike: each dash a minus, each invisible character nothing.
_DASHES = "\N{MINUS SIGN}\u2010\u2011\u2012\u2013\u2014\u2015\ufe58\ufe63\uff0d"
_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff" + "".join(map(chr, range(0x202A, 0x202F)))
_ALIKE = str.maketrans(dict.fromkeys(_DASHES, "-") | dict.fromkeys(_INVISIBLE, ""))
_SUPERSCRIPTS = str.maketrans("⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "+-0123456789")
_FIRM_SPACES = re.compile("(?<=[0-9])~(?=[A-Za-z])")  # LaTeX's
_ENTITY = re.compile(r"&#?[A-Za-z0-9]{1,32};")
_RAISED = re.compile("(?<![0-9.,])10([⁺⁻]?[⁰¹²³⁴-⁹]++)")

_SPACE = "[ \t\u00a0\u2007-\u200a\u202f\u205f\u3000]"
_THIN = "[ \u00a0\u2007-\u200a\u202f\u205f]"  # between groups of three digits

_WHOLE = rf"""(?: [1-9][0-9]{{0,2}}(?:,[0-9]{{3}})++                                          # 1,200
                | [1-9][0-9]?(?:,[0-9]{{2}}(?![0-9]))++,[0-9]{{3}}                            # 1,00,000
                | (?<![0-9]{_THIN})[1-9][0-9]{{0,2}}(?:{_THIN}[0-9]{{3}}(?![0-9]))++         # 12 500, not 10 12 500
                | [1-9][0-9]{{0,2}}(?:['’][0-9]{{3}}(?![0-9]))++ | [0-9]++ )"""
_UNDER = f"(?=[0,]*[1-9]){_WHOLE}"
_POWER = r"10\^[({]?(?P<%s>[+-]?[0-9]++)[)}]?"
# What ties digits to a number that ends before them.
_TIES = rf"""[.,/:'’_~]*+[0-9] | \^(?!th|st|nd|rd) | [eE][+-]?[0-9] | {_SPACE}?/{_SPACE}?[0-9] | {EDGE}+[0-9]
           | {_SPACE}[0-9]++/[0-9] | -{EDGE}?[0-9]++/[0-9] | -[0-9]++-[0-9] | {_SPACE}:{_SPACE}?[0-9]"""
# A run of digits with all that is tied to it: a number that is well written, or ``odd``. Every part is atomic,
# possessive or bounded, so a hostile text costs no more than its length.
_RUN = re.compile(
    rf"""
    (?<![0-9.,/]) (?P<before>[.,/]*+{EDGE}*+)
    (?: (?> {_POWER % "alone"}
          | (?P<over>{_WHOLE}) {_SPACE}?/{_SPACE}? (?P<under>{_UNDER})
          | (?P<mixed>[0-9]++)(?:{_SPACE}|{EDGE}|{_SPACE}{EDGE})(?P<above>{_WHOLE})/(?P<below>{_UNDER})
          | (?P<whole>{_WHOLE})(?:\.(?P<part>[0-9]++))?
            (?: {_SPACE}?[×xX*·⋅∙]{_SPACE}?{_POWER % "times"} | [eE](?P<e>[+-]?[0-9]++) )? )
        (?!{_TIES}) {EDGE}*+
      | (?P<odd>[0-9]++(?:{_TIES}|[0-9])*+) )
    | (?P<value>[{UNKNOWN}π∞½⅓⅔¼¾⅐-⅞]|(?![0-9])\d)
    """,
    re.VERBOSE,
)


class Reading(NamedTuple):
    """What a run of digits says: ``size`` is ``None`` where it is not understood; ``in_word`` for one such as H2O's.

    It ends, units that hold digits included, at ``end``.
    """

    size: Fraction | None
    sign: Sign
    end: int
    in_word: bool = False


def use_decimal_mark(mark: str) -> None:
    """Read all numbers from now on with this decimal mark, one of ``DECIMAL_MARKS``.

    >>> use_decimal_mark("comma"); print(read_number("1.200,50")); use_decimal_mark("point")
    2401/2
    """
    global _decimal_mark
    if mark not in DECIMAL_MARKS:
        raise ValueError(f"the decimal mark {mark!r} is none of {', '.join(DECIMAL_MARKS)}")
    _decimal_mark = mark


def as_data_writes(value: Any) -> Any:
    """A number as its data would write it: JSON's 1.5 is 1.5 whatever the mark of the texts; anything else as it is."""
    if isinstance(value, Decimal):  # a column of Parquet
        return with_mark(f"{value:f}")
    return with_mark(str(value)) if isinstance(value, float) else value


def with_mark(written: str) -> str:
    """A number in Python's form, such as ``-3.5``, with the decimal mark in use."""
    return written.translate(_SWAPPED) if _decimal_mark == "comma" else written


def decimal_mark() -> str:
    """The decimal mark that numbers are read with."""
    return _decimal_mark


def read_number(text: str, mark: str | None = None) -> Fraction | None:
    r"""The one number that ``text`` holds, as people read it, or ``None`` where there is none or more than one.

    ``mark`` is the decimal mark, where it is not the program's.

    >>> [str(read_number(text)) for text in ("$1,200.50", "18 apples.", "50%", r"\boxed{18}", "–4", "1/2", "5 million")]
    ['2401/2', '18', '50', '18', '-4', '1/2', '5000000']
    >>> [read_number(text) for text in ("12 or 13", "5 + 3", "", "1,20", "7:00", "1/0", r"\sqrt{16}", "5x", "2–3")]
    [None, None, None, None, None, None, None, None, None]
    """
    text = _as_seen(text, mark or _decimal_mark)
    if _has_foreign_digits(text) or _is_factorial(text):
        return None
    run = _RUN.search(text)
    only = _read(text, run) if run else None
    if only is None or only.size is None or only.sign is Sign.IN_DOUBT or _RUN.search(text, only.end):
        return None
    return only.size * only.sign.value


def last_number(text: str) -> Fraction | None:
    """The last number that ``text`` holds, or ``None`` where there is none, or where the last is not understood.

    A plus or minus that may be an operator is one: the last number of "20-2" is 2. Digits in words do not count.
    """
    for line in reversed(_as_seen(text, _decimal_mark).splitlines()):
        runs = list(_RUN.finditer(line))
        while runs:
            run = runs.pop()
            last = _read(line, run)
            if last.in_word or (runs and _read(line, runs[-1]).end > run.start()):  # "H2O", or the 2 of "20 m^2"
                continue
            return _with_operator(last)
    return None


def first_number(text: str) -> Fraction | None:
    """The first number that ``text`` holds, by the rules of ``last_number``."""
    text = _as_seen(text, _decimal_mark)
    readings = (_read(text, run) for run in _RUN.finditer(text))
    first = next((reading for reading in readings if not reading.in_word), None)
    return None if first is None else _with_operator(first)


def _with_operator(reading: Reading) -> Fraction | None:
    return None if reading.size is None else reading.size * (reading.sign.value or 1)


def _as_seen(text: str, mark: str) -> str:
    """The text without LaTeX, with one kind of minus, without invisible characters, and with a decimal point."""
    if "&" in text:
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
    if not text.isascii():
        text = _RAISED.sub(lambda power: f"10^{power[1].translate(_SUPERSCRIPTS)}", text.translate(_ALIKE))
    if "~" in text:
        text = _FIRM_SPACES.sub("\u00a0", text)
    text = plain(text)
    return text.translate(_SWAPPED) if mark == "comma" else text


def _read(text: str, run: re.Match[str]) -> Reading:
    """What a match of ``_RUN`` says, with what stands beside it."""
    if run["value"]:
        return Reading(None, Sign.PLUS, run.end())
    around = look_around(text, run.start(), run.end())
    size = None if around.in_word else _size(text, run)
    if size is not None:
        size = None if around.factor is None else size * around.factor
    return Reading(size, around.sign, around.end, around.in_word)


def _size(text: str, run: re.Match[str]) -> Fraction | None:
    """The value of a match of ``_RUN`` without what stands beside it; ``None`` where it is not understood."""
    if run["odd"] or "/" in run["before"] or sum(map(str.isdigit, run[0])) > MAX_DIGITS:
        return None
    exponent = int(run["alone"] or run["times"] or run["e"] or 0)
    if abs(exponent) > MAX_DIGITS:
        return None
    if run["alone"]:
        return Fraction(10) ** exponent
    if run["over"]:
        return Fraction(_whole(run["over"]), _whole(run["under"]))
    if run["mixed"]:
        part = Fraction(_whole(run["above"]), _whole(run["below"]))
        return int(run["mixed"]) + part if part < 1 else None
    digits, decimals = str(_whole(run["whole"])), run["part"] or ""
    if run["before"] == "." and not decimals and not text[max(0, run.start() - 1) : run.start()].isalpha():
        digits, decimals = "", run["whole"]  # ".5", but not the full stop of "Rs.5"
    size = Fraction(int(digits + decimals), 10 ** len(decimals))
    return size * Fraction(10) ** exponent if exponent else size


def _whole(written: str) -> int:
    return int("".join(re.findall("[0-9]", written)))


def _is_factorial(text: str) -> bool:
    """Is it a number and an exclamation mark and nothing else? With a word ("It is 18!") the mark is one of joy."""
    return "!" in text and not any(map(str.isalpha, text))


def _has_foreign_digits(text: str) -> bool:
    """Digits outside ASCII anywhere, except in a unit such as m²."""
    if text.isascii():
        return False
    return any(
        unicodedata.category(character).startswith("N") and not (character in "²³" and text[i - 1 : i].isalpha())
        for i, character in enumerate(text)
        if not character.isascii()
    )
