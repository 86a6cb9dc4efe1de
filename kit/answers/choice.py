"""One of several choices, such as A to D, or yes and no."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from kit.answers.kind import AnswerKind
from kit.answers.places import bare, in_gold, last_line, places

_MARKUP = str.maketrans("", "", "*_`")
# "is not A": what stands behind is what the answer is not.
_UNDENIED = "".join(f"(?<!(?i:{said}) {opened})" for said in ("not", "n't", "n’t", "no es") for opened in ("", r"\("))


def choice_key(text: str) -> str:
    """What two ways to write a choice share.

    >>> [choice_key(text) for text in ("(B)", "**b**", "Not  sure.", "[1]")]
    ['b', 'b', 'not sure', '1']
    """
    return " ".join(bare(bare(text).strip("()[]")).casefold().split())


@dataclass(frozen=True)
class Choice(AnswerKind):
    """One of ``choices``, whatever its case.

    Args:
        choices: what there is to choose from, of which no two share a key.
    """

    choices: tuple[str, ...]

    @property
    def wanted(self) -> str:
        return f"just one of {', '.join(self.choices)}"

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {choice_key(choice): choice for choice in self.choices}

    @cached_property
    def _are_signs(self) -> bool:
        """Are they letters or digits, which a text is full of, and no words?"""
        return all(len(key) == 1 for key in self._by_key)

    @cached_property
    def _any(self) -> str:
        return "|".join(re.escape(key) for key in sorted(self._by_key, key=len, reverse=True))

    @cached_property
    def _label(self) -> re.Pattern[str]:
        return re.compile(rf"\s*(?:[(\[](?P<in>{self._any})[)\]][).:]?|(?P<before>{self._any})[).:])(?=\s|$)")

    @cached_property
    def _further(self) -> re.Pattern[str]:
        """Another choice after a label: a sign only as a label, after "or", or as what something is said of."""
        if not self._are_signs:
            return re.compile(rf"(?<!\w)(?P<it>{self._any})(?!\w)")
        one = rf"[(\[]?(?P<it>{self._any})[)\]]?"
        return re.compile(
            rf"(?<![\w'])(?:(?:or|and|o|y|,|/)\s+)?{one}(?:[).:]\s+\S|\s+(?:is|was|es)\b)"
            rf"|(?<!\w)(?:or|o|not|no|/)\s*[(\[]?(?P<it2>{self._any})(?!\w)|[,/]\s*(?P<it3>{self._any})(?:[,/]|\s*$)"
        )

    def read(self, block: str) -> str | None:
        """The choice that a block names: alone, or as a label before what it stands for. One that names two says none.

        >>> [Choice(tuple("ABCD")).read(block) for block in ("(b)", "B) A dog", "A dog", "A) Paris or b) Rome", "A, B")]
        ['B', 'B', None, None, None]
        """
        if alone := self._by_key.get(choice_key(block)):
            return alone
        said = block.casefold().translate(_MARKUP)
        if not (label := self._label.match(said)):
            return None
        first = label["in"] or label["before"]
        others = {found for match in self._further.finditer(said, label.end()) for found in match.groups() if found}
        return self._by_key[first] if others <= {first} else None

    def find(self, text: str) -> str | None:
        r"""What the block or the box says, else the choice in the last line: a sign that stands alone there, a word
        that it begins or ends with; one that is denied is none.

        >>> Choice(tuple("ABCD")).find("Berlin is B and Rome is D.\\nSo the answer is D, Rome.")
        'D'
        """
        for place in places(text, self.read):
            if found := self.read(place):
                return found
        line = last_line(text)
        if found := self.read(line):
            return found
        if self._are_signs:
            # Signs as the task writes them; of "a dog" and "I see" the first letter is none.
            written = "|".join(re.escape(choice) for choice in self.choices)
            named = re.findall(
                rf"{_UNDENIED}(?<![\w'])(?!(?:[AaIi]) (?!is\b|was\b|es\b)[a-z])({written})(?![\w'])", line
            )
        else:
            ends = rf"\A({self._any})(?!\w)|{_UNDENIED}(?<!\w)({self._any})\Z"
            named = re.findall(ends, bare(line).casefold())
            named = [self._by_key[one or other] for one, other in named]
        return named[0] if len(set(named)) == 1 else None

    def gold(self, text: str) -> str:
        """The choice, as it is written in ``choices``."""
        if (right := self.read(text.rpartition("####")[2]) or self.read(in_gold(text))) is None:
            raise ValueError(
                f"the answer {text.strip()[:80]!r} is none of {', '.join(self.choices)}: write one of them"
            )
        return right

    def doubt(self, golds: list[str]) -> str | None:
        """Is one choice always the right one? Then there is nothing to learn but to name it."""
        right = {self.gold(gold) for gold in golds}
        if len(golds) > 1 and len(right) == 1:
            return f"all {len(golds)} answers are {right.pop()}: a model learns to say that, whatever is asked"
        return None
