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
    def _labelled(self) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w)(?:\((?P<in>{self._any})\)|(?P<before>{self._any})[).:](?=\s|$))", re.I)

    @cached_property
    def _mentioned(self) -> re.Pattern[str]:
        return re.compile(rf"(?<!\w)(?:{self._any})(?!\w)")

    def read(self, block: str) -> str | None:
        """The choice that a block names: alone, or as a label before what it stands for. One that names two says none.

        >>> [Choice(tuple("ABCD")).read(block) for block in ("(b)", "B) Rome", "A dog", "A) Paris or B) Rome", "A, B")]
        ['B', 'B', None, None, None]
        """
        said = bare(block)
        if alone := self._by_key.get(said.strip("()[]").casefold()):
            return alone
        labels = [match["in"] or match["before"] for match in self._labelled.finditer(said)]
        starts = self._labelled.match(said) is not None
        return self._by_key[labels[0].casefold()] if starts and len(labels) == 1 else None

    def find(self, text: str) -> str | None:
        """What the block or the box says, else the only choice that the last line names, as it is written.

        >>> Choice(tuple("ABCD")).find("Berlin is B and Rome is D.\\nSo the answer is D, Rome.")
        'D'
        """
        for place in places(text, self.read):
            if found := self.read(place):
                return found
        line = last_line(text)
        named = set(self._mentioned.findall(line)) - ({"A", "I"} if re.match(r"\s*[AI] [a-z]", line) else set())
        return self.read(line) or (self._by_key[named.pop().casefold()] if len(named) == 1 else None)

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
