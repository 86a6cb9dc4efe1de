"""Replies to browse: several rows' answers to the same questions, as much of them as a page should hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.cli.text import visible

_LONGEST = 8_000  # characters of one text; what a model repeats until it is cut off needs no more
_FLAGS = {"strict": 1, "flexible": 2, "in_format": 4, "truncated": 8}  # browse.js reads them
Line = dict[str, Any]


@dataclass(frozen=True)
class ReplySet:
    """Rows that answered the same questions.

    Args:
        title: what the questions are.
        files: where all replies lie, relative to the run folder.
        names: of the rows, in the order of ``answers``.
        answers: for each row its lines by the question's index; a line has ``question``, ``gold``, ``reply`` and the
            verdicts ``strict``, ``flexible``, ``in_format`` and, where it is known, ``truncated``.
        before: the place of the row that is compared with.
        after: the place of the row that is compared.
        gone: names of rows whose replies are not there any more.
    """

    title: str
    files: str
    names: list[str]
    answers: list[dict[int, Line]]
    before: int
    after: int
    gone: list[str] = field(default_factory=list)

    @property
    def indices(self) -> list[int]:
        """The questions that any row answered."""
        return sorted({index for lines in self.answers for index in lines})

    def lines(self, index: int) -> list[Line | None]:
        """A line for each row; none where a row was asked something else at that place."""
        found = [lines.get(index) for lines in self.answers]
        question = next(line["question"] for line in found if line)
        return [line if line and line["question"] == question else None for line in found]

    def pairs(self) -> list[tuple[Line, Line]]:
        """What the rows ``before`` and ``after`` said, of the questions that both answered."""
        both = [(lines[self.before], lines[self.after]) for lines in map(self.lines, self.indices)]
        return [(before, after) for before, after in both if before and after]


@dataclass(frozen=True)
class Browsable:
    """A set as the page holds it: its JSON, and the counts that say how much of it that is."""

    title: str
    files: str
    gone: list[str]
    rows: int
    questions: int  # of the set
    shown: int  # of them on the page
    differ: int  # of the set's questions, those on which the rows are not judged alike
    differ_shown: int
    json: str


def browsable(replies: ReplySet, most: int) -> Browsable:
    """The replies to as many questions as fit into ``most`` bytes of JSON.

    First come the questions of which some rows are right and some are wrong, then those that differ in form or in being
    cut off, then the rest; each in its order.
    """
    lines = {index: replies.lines(index) for index in replies.indices}
    interest = {index: _interest(of) for index, of in lines.items()}
    chosen: dict[int, str] = {}
    taken = 0
    for index in sorted(lines, key=lambda index: (interest[index], index)):
        text = _as_json(index, lines[index])
        taken += len(text.encode("utf-8", errors="replace")) + 2
        if taken > most:
            break
        chosen[index] = text
    head = {
        "title": replies.title,
        "rows": replies.names,
        "before": replies.before,
        "after": replies.after,
        "total": len(lines),
        "knowsCutOff": any("truncated" in line for of in lines.values() for line in of if line),
    }
    questions = ",\n".join(chosen[index] for index in sorted(chosen))
    return Browsable(
        title=replies.title,
        files=replies.files,
        gone=replies.gone,
        rows=len(replies.names),
        questions=len(lines),
        shown=len(chosen),
        differ=sum(value < 2 for value in interest.values()),
        differ_shown=sum(interest[index] < 2 for index in chosen),
        json=f'{json.dumps(head, ensure_ascii=False)[:-1]}, "questions": [{questions}]}}',
    )


def for_script_tag(text: str) -> str:
    """JSON that no HTML parser reads as anything but the text of its script element, and that is the same JSON.

    >>> for_script_tag('{"reply": "</script><!--"}')
    '{"reply": "\\\\u003c/script\\\\u003e\\\\u003c!--"}'
    """
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _interest(lines: Sequence[Line | None]) -> int:
    """0: the rows differ in being right; 1: in form or in being cut off; 2: in nothing that is judged."""
    there = [line for line in lines if line]
    if len({(bool(line["strict"]), bool(line["flexible"])) for line in there}) > 1:
        return 0
    return 1 if len({_flags(line) for line in there}) > 1 else 2


def _flags(line: Line) -> int:
    return sum(flag for name, flag in _FLAGS.items() if line.get(name))


def _as_json(index: int, lines: Sequence[Line | None]) -> str:
    """``[index, question, gold, rows]``; a row is ``[flags, reply]`` or null, and a reply that a row before it gave too
    is that row's place, as merged weights and their 16-bit file often say the same."""
    first = next(line for line in lines if line)
    places: dict[str, int] = {}
    rows: list[list[Any] | None] = []
    for place, line in enumerate(lines):
        if line is None:
            rows.append(None)
            continue
        said = line["reply"]
        rows.append([_flags(line), places[said] if said in places else _shown(said)])
        places.setdefault(said, place)
    return json.dumps([index, _shown(first["question"]), _shown(first["gold"]), rows], ensure_ascii=False)


def _shown(text: Any) -> str:
    text = visible(str(text))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n… (the page leaves out what follows)"
