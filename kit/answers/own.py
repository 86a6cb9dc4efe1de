"""Answers that a task's own functions read and judge."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from kit.answers.kind import Answer, AnswerKind
from kit.answers.places import bare, last_line, places
from kit.cli.errors import UserError

_SHOWN = 300  # characters of a reply in a message


@dataclass(frozen=True)
class Said:
    """What ``read_answer`` made of a text, with something to tell it from other answers by."""

    key: Hashable
    value: Any = field(compare=False)


@dataclass(frozen=True)
class Own(AnswerKind):
    """The answers of a task file with functions.

    Args:
        is_right: says of an answer and the right one, which is the data's text, whether it is right.
        read_answer: makes an answer of a block's text; ``None``, or a ValueError or ArithmeticError, says that there
            is none.
        source: what the functions are made of.
        file: they stand in.
    """

    is_right_: Callable[[Any, str], Any] = field(compare=False)
    read_answer: Callable[[str], Any] | None = field(compare=False, default=None)
    source: str = ""
    file: str = ""

    takes_values = True

    @property
    def wanted(self) -> str:
        return "an answer that read_answer of the task takes"

    def read(self, block: str) -> Said | None:
        """What ``read_answer`` says of a block."""
        text = block.strip()
        if not text:
            return None
        if self.read_answer is None:
            return Said(text, text)
        try:
            value = self.read_answer(text)
        except (ValueError, ArithmeticError, RecursionError):  # as int(), Fraction, Decimal and json.loads() say it
            return None
        except Exception as error:
            raise self._broken("read_answer", error, text) from error
        return None if value is None else Said(_key(value), value)

    def find(self, text: str) -> Said | None:
        """What the block or the box says, else the last line, after "the answer is"."""
        return next(filter(None, map(self.read, (*places(text, self._key_of), bare(last_line(text))))), None)

    def _key_of(self, text: str) -> Hashable:
        said = self.read(text)
        return said and said.key

    def gold(self, text: str) -> str:
        """The data's text, as it is."""
        if not text.strip():
            raise ValueError("the answer says nothing")
        return text

    def is_right(self, answer: Answer, gold: Answer) -> bool:
        """What ``is_right`` says."""
        assert isinstance(answer, Said)
        try:
            said = self.is_right_(answer.value, str(gold))
        except Exception as error:
            raise self._broken("is_right", error, f"{answer.value}", str(gold)) from error
        said = said.item() if hasattr(said, "item") else said  # numpy's and torch's
        if said not in (True, False) or not isinstance(said, (bool, int)):
            raise UserError(f"is_right of {self.file} returned {said!r:.80}: return True or False")
        return bool(said)

    def _broken(self, name: str, error: Exception, *texts: str) -> UserError:
        shown = " and ".join(repr(text[:_SHOWN]) for text in texts)
        return UserError(f"{name} of {self.file} raised {type(error).__name__}: {error}; mend it. It was given {shown}")


def _key(value: Any) -> Hashable:
    """Something that equal answers share: themselves, or where they cannot be hashed, how they are shown."""
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value
