"""What stands left and right of a number, and what that makes of it: its sign, its scale, or no number at all.

Text here is plain (``kit/numbers/latex.py`` has been over it) and its dashes are all ``-``. Only a few characters on
either side are looked at. Units and other words leave a number as it is; what may change its value makes it unclear.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from kit.numbers.latex import SYMBOL, UNKNOWN

REACH = 32  # characters on either side that are looked at

# Letters of scripts that put a space between word and number; in the others (共18个) a word may touch its number.
_CASED = r"A-Za-zªµº\u00c0-\u024f\u0370-\u052f"
_GAP = "[ \t\u00a0\u2007-\u200a\u202f\u205f\u3000]*+"
# Not the currency sign ¤ itself, which is SYMBOL here.
_CURRENCY = (
    r"(?:(?<![A-Za-z])(?:[A-Z]{1,3}(?=\$)|USD|EUR|GBP|CHF|JPY|CNY|INR|CAD|AUD|MXN|ARS|COP|CLP|PEN|BRL|Rs\.?|Bs\.?)[ ]?"
    r"|[$¢£¥֏؋৲৳฿៛₠-⃀﷼﹩＄￠￡￥￦])+"
)
_MARKS = "[*_`$]"  # of markup: bold, code, a formula
_VALUES = f"√∛∜π∞±{UNKNOWN}{SYMBOL}"

_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "lakhs": 10**5, "million": 10**6, "millions": 10**6,
    "crore": 10**7, "crores": 10**7, "billion": 10**9, "billions": 10**9, "trillion": 10**12, "trillions": 10**12,
    "millón": 10**6, "millones": 10**6, "billón": 10**12, "billones": 10**12,
    "百": 10**2, "千": 10**3, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8,
}  # fmt: skip
_WITH_CURRENCY = {
    "k": 10**3,
    "K": 10**3,
    "m": 10**6,
    "M": 10**6,
    "b": 10**9,
    "B": 10**9,
    "bn": 10**9,
}  # "$5k", not "5k"
_SCALE = "|".join(sorted(_SCALES, key=len, reverse=True))
# Multiples that people use in two ways (of 3 dozen eggs, are there 3 or 36?), or that are not read.
_MULTIPLE = """dozens?|docenas?|mil|mille|tausend|mill?ionen|milliarden?|milliards?|milhões|milioni|mio|mrd|mln|mn|bn
    |halves|thirds|fourths|fifths|sixths|sevenths|eighths|ninths|tenths|(?:ten-|hundred-)?(?:hundred|thousand)ths|tens
    |hundreds|thousands|décim[ao]s?|(?:cent|mil)ésim[ao]s?|decenas?|centenas?|centenares|millares?
    |(?:half|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|mitad|tercios?|quintos?|sextos?|octavos?)
     (?=[ ](?:of|de)[ ]|[ ]*(?:[.,;:!?)<*]|$))
    |squared|cubed|factorial|(?:elevado[ ])?al[ ](?:cuadrado|cubo)|elevado[ ]a|(?:\\w+[ ])?(?:below[ ]zero|bajo[ ]cero)
    |(?:and|y)[ -](?:half|third|fourth|quarters?|medi[oa]|tercio|cuarto
     |(?:an?|one|two|three|four|five|six|seven|eight|nine|una?|dos|tres|cuatro|cinco|seis|siete|ocho|nueve)[ -]
      (?:half|halves|medi[oa]|(?:third|fourth|quarter|fifth|sixth|seventh|eighth|ninth|tenth|tercio|cuarto|quinto|octavo
      |noveno|décimo)s?))"""
_FUNCTION = "sqrt|cbrt|root|log|ln|lg|exp|a?sin|a?cos|a?tan|abs|mod"

# A letter that stands for a number, "5x", and not for a unit, "5m", or a time, "9 a.m.".
_LETTER = "(?![mgshlLWVANJCF]|[ap]\\.[ ]?m(?![a-z]))[A-Za-zα-ωΑ-Ω](?![^\\W_²³])"
_ALONE = rf"(?!{_GAP}[^\W\d_])"  # "5 x", but not "5 a day"

_RIGHT = re.compile(
    rf"""
      {_GAP}-?(?P<scale>(?i:{_SCALE}))(?![A-Za-z0-9])
    | (?P<letter>bn|[kKmMbB])(?![A-Za-z0-9$])
    | (?P<unclear>
          {_GAP}-?(?i:{_MULTIPLE})(?![^\W\d_])
        | {_GAP}(?:[-+*/×·÷^]{_GAP})?(?:[{_VALUES}]|pi(?![a-z])|(?:{_FUNCTION})\()
        | {_LETTER} | {_GAP}{_LETTER}{_ALONE} | {_GAP}/{_GAP}{_LETTER}{_ALONE}
        | {_GAP}[-+*×·÷^]{_GAP}[A-Za-z](?![^\W_]){_ALONE}
        | (?:[xyz]{{2,3}}|[abnpqrxyz]{{2}})(?![^\W_])             # "5xy"
        | [{_CASED}]+[0-9] | [百千万萬亿億]                       # "7h30", "3万5"
        | \([A-Za-z0-9]{_GAP}[-+*/^)]                             # "5(x + 1)"
        | {_GAP}(?:[≤≥≠]|[<>]=|[<>][ ]) | ![-+*/^=]
        | [⁰¹²³⁴-⁹₀-₉¼-¾⅐-↋]
      )""",
    re.VERBOSE,
)
_LENGTH = """[kcdmµμ]?m|ft|in|yd|mi|feet|foot|inch(?:es)?|yards?|miles?|units?|unidades?
    |(?:centi|kilo|centí|kiló)?met(?:er|re|ro)s?"""
# "m^2", "cm³", "m/s2": the digit belongs to the unit.
_RAISED_UNIT = re.compile(
    rf"{_GAP}(?:[A-Za-z]{{1,3}}{_GAP}[/·*]{_GAP}(?:s|h|{_LENGTH})|{_LENGTH})(?:\^?[({{]?[23][)}}]?(?![0-9])|[²³])",
    re.VERBOSE,
)

_LEFT = re.compile(
    rf"""(?:
      (?P<tag><[/A-Za-z|][^<>]*+>{_GAP})
    | (?P<unclear>
          [{_VALUES}] {_GAP} [-+*/×·÷]? {_GAP} [({{]? | [≤≥≠^] {_GAP} [({{]? | \|[-+]? | (?:[<>]=|<|(?<![-=>])>) {_GAP}
        | (?<![A-Za-z]) (?i:{_FUNCTION}|half|twice|double|triple|(?:square|cube|third|quarter)\ of) (?:\ of)? {_GAP} \(?
        | (?<!\w) (?i:la\ mitad|el\ (?:doble|triple)|(?:un|[0-9])\ (?:tercio|cuarto|quinto)s?
                   |la\ (?:tercera|cuarta)\ parte|raíz(?:\ c[a-zú]+)?) \ de\ (?:l[oa]s\ )? \(?
        | (?<![A-Za-z0-9]) [A-Za-z]\( | [0-9]\( | - {_GAP} \(      # "f(3)", "2(3)", "-(3)"
        | (?<![{_CASED}]) [b-hj-zB-HJ-Z] {_GAP} [-+*/×·÷^] {_GAP}  # "x + 3"
        | (?:{_SCALE}) {_GAP} (?:(?:and|y)\ )?                     # "5 million 200"
      )
    )$""",
    re.VERBOSE,
)
# These end where the number begins, "\Z"; "$" would also take what ends the line above.
_WORD = re.compile(rf"(?:[{_CASED}]|[{_CASED}0-9]_)\Z")  # "x2", "H2O", "x_1"
_SIGN = re.compile(rf"(?:([-+]?)({_CURRENCY}){_GAP})?([-+]?)\Z")
# "-**18**", "(-)18", "-[18]", "-<b>18</b>"
_MARKED_SIGN = re.compile(rf"[-+](?:{_MARKS}|[][(){{}}'\"‘’“”]|<[/A-Za-z][^<>]*+>)+\Z")
_MARKS_BEFORE_WORD = re.compile(rf"{_GAP}{_MARKS}++(?={_GAP}[^\W\d_])")  # "$5$ million", "5 *million*"
_SPACED_MILLION = re.compile(rf"{_GAP}m(?![A-Za-z0-9$])")
_SPACED_DOLLAR = re.compile(r"[ ]\$")
_LOOSE_SIGN = re.compile(r"[-+]\s+$")
# Not "non-negative 18", nor "al menos 18", "por lo menos 18", "más o menos 18": at least, about.
_WORD_SIGN = re.compile(
    rf"(?<![A-Za-z])(?<!non-)(?<!al )(?<!lo )(?<! o )(negative|minus|menos)(?:{_MARKS}|\s)+\Z", re.IGNORECASE
)
_LARGER_PART = re.compile(
    rf"""[0-9]{_GAP}(?:hours?|hrs?|h|minutes?|mins?|days?|weeks?|months?|years?|feet|foot|ft|pounds?|lbs?|dollars?|horas?
    |minutos?|días?|semanas?|meses|años?),?{_GAP}(?:(?:and|y)[ ])?$""",
    re.VERBOSE,
)
_SMALLER_PART = re.compile(
    rf"""{_GAP}(?:minutes?|mins?|seconds?|secs?|s|hours?|days?|weeks?|months?|inch(?:es)?|in|ounces?|oz|cents?|horas?
    |minutos?|segundos?|días?|semanas?|meses)(?![A-Za-z])""",
    re.VERBOSE,
)


class Sign(Enum):
    """The sign of a number, where it is certain, or why there is none."""

    PLUS = 1
    MINUS = -1
    IN_DOUBT = 0  # a plus or minus that may be an operator, a hyphen or a bullet: "20-2", "- 4"


class Neighbours(NamedTuple):
    """``factor`` is ``None`` where the value is not understood; ``end`` is where the units that hold digits end.

    ``in_word`` says that the digits belong to a word, such as H2O, and are no number.
    """

    sign: Sign
    factor: int | None
    end: int
    in_word: bool


def look_around(text: str, start: int, end: int) -> Neighbours:
    """What surrounds the number that stands in ``text[start:end]``."""
    before = text[max(0, start - REACH) : start]
    sign = _SIGN.search(before)
    assert sign is not None  # it matches the empty string
    rest = before[: sign.start()]
    if not sign[0] and text[start] not in ".,/" and _WORD.search(before):
        return Neighbours(Sign.PLUS, None, end, in_word=True)
    unclear = any((left := _LEFT.search(part)) and left["unclear"] for part in {before, rest})
    unclear = unclear or bool(_LARGER_PART.search(before) and _SMALLER_PART.match(text, end))
    factor, end = _scaled(text, end, has_currency=bool(sign[2]))
    is_between = bool(sign[2] and sign[3]) and rest.rstrip()[-1:].isdigit()  # "10 EUR-20 EUR"
    if sign[2] == "$":  # which a formula may begin with: "for day 3 $-18$", and not "10 $-20 $"
        is_between = is_between and bool(_SPACED_DOLLAR.match(text, end))
    said = Sign.IN_DOUBT if is_between else _sign((sign[1] or "") + sign[3], rest)
    return Neighbours(said, None if unclear else factor, end, in_word=False)


def _scaled(text: str, end: int, has_currency: bool) -> tuple[int | None, int]:
    """What the words after a number multiply it by, ``None`` for what is not understood, and where they end."""
    factor = 1
    for _ in range(3):  # "2 hundred thousand million" is enough
        marks = _MARKS_BEFORE_WORD.match(text, end)
        seen = marks.end() if marks else end
        has_currency = has_currency and not (marks and "$" in marks[0])  # the other $ opened a formula
        if raised := _RAISED_UNIT.match(text, seen):
            return factor, raised.end()
        right = _RIGHT.match(text, seen)
        if right is None and has_currency and _SPACED_MILLION.match(text, seen):
            return None, end
        if right is None or (right["letter"] == "m" and not has_currency):
            return factor, end
        if right["unclear"] or (right["letter"] and not has_currency):
            return None, end
        factor *= _SCALES[right["scale"].lower()] if right["scale"] else _WITH_CURRENCY[right["letter"]]
        end = right.end()
    return None, end


def _sign(sign: str, rest: str) -> Sign:
    if not sign:
        if word := _WORD_SIGN.search(rest):
            is_operator = word[1].lower() != "negative" and any(map(str.isdigit, rest))
            return Sign.IN_DOUBT if is_operator or "\n" in word[0] else Sign.MINUS
        return Sign.IN_DOUBT if _LOOSE_SIGN.search(rest) or _MARKED_SIGN.search(rest) else Sign.PLUS
    if len(sign) > 1 or (rest and (rest[-1].isalnum() or rest[-1] in "-+)")):
        return Sign.IN_DOUBT
    return Sign.MINUS if sign == "-" else Sign.PLUS
