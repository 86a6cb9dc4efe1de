"""A JSON value: right where it is the same value, however it is spaced and its names are ordered."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from kit.answers.kind import AnswerKind
from kit.answers.places import places

_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(?P<inside>.*?)\n\s*```\s*\Z", re.DOTALL)
_TRIES = 50  # places in a reply where a value could begin


@dataclass(frozen=True)
class Json(AnswerKind):
    """An answer is its canonical text, so that ``true`` and 1 differ, and 1 and 1.0 do not."""

    takes_values = True

    @property
    def wanted(self) -> str:
        return "one JSON value"

    def read(self, block: str) -> str | None:
        """The value of a block, in a fence or not. A name that stands twice in an object makes it none.

        >>> [Json().read(block) for block in ('{"b": 1.0, "a": [true]}', '{"a": 1, "a": 2}', "NaN", "{")]
        ['{"a": [true], "b": 1}', None, None, None]
        """
        fenced = _FENCE.match(block)
        try:
            return _canonical(_DECODER.decode((fenced["inside"] if fenced else block).strip()))
        except (ValueError, RecursionError):
            return None

    def find(self, text: str) -> str | None:
        """What the block or the box holds, else the last object or list in the text."""
        for place in places(text, self.read):
            if found := self.read(place):
                return found
        found, start = None, 0
        for _ in range(_TRIES):
            begin = re.search(r"[{\[]", text[start:])
            if not begin:
                break
            start += begin.start()
            try:
                value, start = _DECODER.raw_decode(text, start)
                found = _canonical(value)
            except (ValueError, RecursionError):
                start += 1
        return found

    def gold(self, text: str) -> str:
        """The whole of it."""
        if (right := self.read(text)) is None:
            raise ValueError(f"the answer {text.strip()[:80]!r} is no JSON")
        return right


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice")
    return found


def _finite(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_finite)


def _canonical(value: Any) -> str:
    return json.dumps(_whole(value), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _whole(value: Any) -> Any:
    """1.0 as 1, however deep it lies."""
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
