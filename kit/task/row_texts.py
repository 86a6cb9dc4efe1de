"""A question and an answer as texts out of a row, however deep they lie; never the text of a Python object."""

from __future__ import annotations

import ast
import json
import re
from decimal import Decimal
from typing import Any

from kit.numbers.reading import as_data_writes

_OF_A_MESSAGE = ("role", "content", "user")
_CHAT = re.compile(r"""\s*\[\s*\{\s*["'](?:role|content)["']\s*:""")
_KINDS = {"list": "a list", "tuple": "a list", "dict": "an object", "bool": "true or false", "bytes": "bytes"}


def value_at(row: dict[str, Any], column: str) -> Any:
    """What ``column`` names: a column, or a place in one: ``reward_model.ground_truth``, ``messages.1.content``.

    ``None`` where there is nothing.
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def text_of(value: Any, column: str, option: str) -> str:
    """A text or number as a text.

    Raises:
        ValueError: it is something else, in words that name a place in it that could be meant.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return str(value)
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    places = [place for name, item in inside if (place := _text_in(f"{column}.{name}", item))][:3]
    way_out = f"name what is meant in it, {option} {' or '.join(places)}" if places else f"name another with {option}"
    raise ValueError(f"{column!r} is {_kind(value)}, not a text; {way_out}")


def answer_text(value: Any, column: str, option: str, takes_values: bool) -> str:
    """The answer of a row as a text; where its kind takes any value, one that is no text is written as JSON.

    Raises:
        ValueError: it is something else than such an answer can be.
    """
    if not takes_values or isinstance(value, str):
        try:
            return text_of(as_data_writes(value), column, option)
        except ValueError as error:
            if isinstance(value, (bool, list, dict)):
                raise ValueError(f"{error}, or take a task whose answer is json") from None
            raise
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        raise ValueError(f"{column!r} holds {value!r:.60}, which is no JSON: write it as a text") from None


def as_chat(value: Any) -> list[dict[str, Any]] | None:
    """A list of chat messages (``{"role": ..., "content": ...}``), also where it was written as a text, as in a CSV.

    Raises:
        ValueError: it was written as a text in a way that cannot be read again.
    """
    if isinstance(value, str):
        if not (_CHAT.match(value) and value.rstrip().endswith("]") and all(map(value.__contains__, _OF_A_MESSAGE))):
            return None
        for read in (json.loads, ast.literal_eval):
            try:
                return as_chat(read(value))
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
        if re.search(r"\}\s+\{|:\s*(?:nan|NaT|array\()", value):  # as numpy or pandas wrote it
            raise ValueError("holds a chat that was written as a text: save the data as JSON Lines or Parquet")
        return None  # a question about such code
    are_messages = isinstance(value, list) and all(
        isinstance(item, dict) and {"role", "content"} <= set(item) for item in value
    )
    return value if are_messages else None


def last_question(messages: list[dict[str, Any]] | None) -> str | None:
    """The last message of the user in a chat."""
    if messages is None:
        return None
    asked = [_content(message["content"]) for message in messages if message["role"] == "user"]
    return asked[-1] if asked else None


def _text_in(place: str, item: Any) -> str | None:
    """The place itself where it holds a text or number, or of a message, where its text is."""
    if isinstance(item, (str, int, float)):
        return place
    named = next((name for name in ("value", "content", "text") if isinstance(item, dict) and name in item), None)
    return named and f"{place}.{named}"


def _content(content: Any) -> str | None:
    """The text of a message; of one in parts, where all of them are text."""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("text") is not None for part in content):
        return "\n".join(str(part["text"]) for part in content)
    return content if isinstance(content, str) else None


def _kind(value: Any) -> str:
    return _KINDS.get(type(value).__name__, f"a {type(value).__name__}")
