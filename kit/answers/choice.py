"""One of several choices, such as A to D, or yes and no."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from kit.answers.kind import AnswerKind
from kit.answers.places import bare, last_line, places


@dataclass(frozen=True)
class Choice(AnswerKind):
    """One of ``choices``, whatever its case.

    Args:
        choices: what there is to choose from.
    """

    choices: tuple[str, ...]

    @property
    def wanted(self) -> str:
        return f"just one of {', '.join(self.choices)}"

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {choice.casefold(): choice for choice in self.choices}

    @cached_property
    def _any(self) -> str:
        return "|".join(re.escape(choice) for choice in sorted(self.choices, key=len, reverse=True))

    @cached_property
    def _label(self) -> re.Pattern[str]:
        return re.compile(rf"(?:\((?P<in>{self._any})\)|(?P<before>{self._any})[).:])(?=\s|$)", re.I)

    @cached_property
    def _mention(self) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w)(?!(?-i:[AI] [a-z]))(?:{self._any})(?!\w)")  # "A dog" names no choice A

    def read(self, block: str) -> str | None:
        """The choice that a block names: alone, or as a label before what it stands for. One that names two says none.

        >>> [Choice(tuple("ABCD")).read(block) for block in ("(b)", "B) A dog", "A dog", "A) Paris or B) Rome", "A, B")]
        ['B', 'B', None, None, None]
        """
        said = bare(block)
        if alone := self._by_key.get(said.strip("()[]").casefold()):
            return alone
        if not (label := self._label.match(said)):
            return None
        first = self._by_key[(label["in"] or label["before"]).casefold()]
        return first if self._named(said[label.end() :]) <= {first} else None

    def find(self, text: str) -> str | None:
        r"""What the block or the box says, else the only choice that the last line names, as it is written.

        >>> Choice(tuple("ABCD")).find("Berlin is B and Rome is D.\nSo the answer is D, Rome.")
        'D'
        """
        for place in places(text, self.read):
            if found := self.read(place):
                return found
        line = last_line(text)
        named = self._named(line)
        return self.read(line) or (named.pop() if len(named) == 1 else None)

    def _named(self, text: str) -> set[str]:
        return {self._by_key[found.casefold()] for found in self._mention.findall(text)}

    def gold(self, text: str) -> str:
        """The choice, as it is written in ``choices``."""
        if (right := self.read(text.rpartition("####")[2])) is None:
            raise ValueError(f"the answer {text.strip()[:80]!r} is none of {', '.join(self.choices)}")
        return right

    def doubt(self, golds: list[str]) -> str | None:
        """Is one choice always the right one? Then there is nothing to learn but to name it."""
        right = {self.gold(gold) for gold in golds}
        if len(golds) > 1 and len(right) == 1:
            return f"all {len(golds)} answers are {right.pop()}: a model learns to say that, whatever is asked"
        return None
