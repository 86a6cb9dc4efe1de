"""Exact text: a word, a name, a line."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from kit.answers.kind import AnswerKind
from kit.answers.places import bare, in_gold, last_line, places

_QUOTES = "*`\"'“”‘’«»"


@dataclass(frozen=True)
class Text(AnswerKind):
    """The same letters, whatever their case, the spaces between words, and quotes, asterisks and full stop around them.

    >>> Text().read("*The  red House.*") == Text().gold("the red house")
    True
    """

    @property
    def wanted(self) -> str:
        return "a text"

    def read(self, block: str) -> str | None:
        """The text, made comparable."""
        said = bare(unicodedata.normalize("NFC", block), _QUOTES, ends=".")
        return " ".join(said.casefold().split()) or None

    def find(self, text: str) -> str | None:
        """What the block or the box says, else the last line, after "the answer is".

        >>> Text().find("I add them up.\\nThe answer is: Rome.")
        'rome'
        """
        return next(filter(None, map(self.read, (*places(text, self.read), last_line(text)))), None)

    def gold(self, text: str) -> str:
        """The part that says it, made comparable."""
        if (right := self.read(in_gold(text, box_ends=True))) is None:
            raise ValueError(f"the answer {text.strip()[:80]!r} says nothing")
        return right

    def gold_text(self, text: str) -> str:
        """The part that says it, as it is written: a user's own rewards compare it with what they cut out."""
        self.gold(text)  # which says where there is none
        said = in_gold(text, box_ends=True).strip()
        return bare(said, "", "") if said.startswith("\\") else said
