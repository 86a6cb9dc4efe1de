"""A JSON value: right where it is the same value, however it is spaced and its names are ordered."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kit.answers.kind import AnswerKind
from kit.answers.places import places

_TRIES = 50  # places in a reply where a value seems to begin, and none does
_MOST_DIGITS = 400  # of a number that is written with an exponent


@dataclass(frozen=True)
class Json(AnswerKind):
    """An answer is its canonical text, so that ``true`` and 1 differ, and 1 and 1.0 do not."""

    takes_values = True

    @property
    def wanted(self) -> str:
        return "one JSON value"

    def read(self, block: str) -> str | None:
        """The value of a block, in a fence or not. A name that stands twice in an object makes it none.

        >>> [Json().read(block) for block in ('{"b": 1.0, "a": [true]}', '{"a": 1, "a": 2}', "1e99999999999999999999")]
        ['{"a": [true], "b": 1}', None, None]
        """
        text = block.strip()
        if text.startswith("```") and text.endswith("```"):
            text = text[3:-3].removeprefix("json").strip()
        try:
            return _canonical(_DECODER.decode(text))
        except (ValueError, ArithmeticError, RecursionError):  # the second for an exponent of twenty digits
            return None

    def find(self, text: str) -> str | None:
        """What the block or the box holds, else the last object or list in the text."""
        for place in places(text, self.read):
            if found := self.read(place):
                return found
        found, start, failed = None, 0, 0
        while (begin := _BEGIN.search(text, start)) and failed < _TRIES:
            try:
                value, start = _DECODER.raw_decode(text, begin.start())
                found = _canonical(value)
            except (ValueError, ArithmeticError, RecursionError):
                start, failed = begin.start() + 1, failed + 1
        return found

    def gold(self, text: str) -> str:
        """The whole of it."""
        if (right := self.read(text)) is None:
            raise ValueError(f"the answer {text.strip()[:80]!r} is no JSON")
        return right

    def doubt(self, golds: list[str]) -> str | None:
        """Do all objects have the same names, and some of them nothing there? So Parquet fills up what a row lacks.

        >>> print((Json().doubt(['{"name": "Ana", "age": 3}', '{"name": "Bo", "age": null}']) or "")[:26])
        of 2 answers, 1 hold null.
        """
        values = [json.loads(self.gold(gold)) for gold in golds]
        empty = sum(isinstance(value, dict) and None in value.values() for value in values)
        if not empty or len({frozenset(value) if isinstance(value, dict) else None for value in values}) > 1:
            return None
        return (
            f"of {len(golds)} answers, {empty} hold null. If a null stands for a name that the row lacks, as Parquet "
            "and the Hub fill it in, a reply without it is wrong: keep the answers as JSON texts then"
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _finite(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_BEGIN = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_finite, parse_float=Decimal)


def _canonical(value: Any) -> str:
    """One text for each value: names in order, numbers exact and without an exponent.

    Raises:
        ValueError: a number is written out too long, or a text holds half a character.
    """
    text = _text(value)
    text.encode()
    return text


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(name)}: {_text(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if not isinstance(value, Decimal):
        return json.dumps(value, ensure_ascii=False)
    if abs(value.adjusted()) > _MOST_DIGITS:
        raise ValueError(f"{value} is too long to write out")
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
