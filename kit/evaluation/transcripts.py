"""Transcripts: every reply that was ever given, in files from which no evaluation deletes another's.

``transcripts/NAME.jsonl`` holds the replies of the last evaluation, ``transcripts/earlier/NAME.jsonl`` those to other
questions or settings, or of what had the name before. A line names what gave it and how (``made_by``) and the questions
that it belongs to (``question_set``); where the same model is asked the same question in the same way, it serves again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kit.grading import gold_answer
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder, append_jsonl, read_jsonl
from kit.task.questions import Row, fingerprint

Line = dict[str, Any]
Key = tuple[int, int]  # (index of the question, number of the sample; 0 for the greedy reply)


def transcript_file(folder: Path, name: str, sampled: bool = False) -> Path:
    """``transcripts/NAME.jsonl``, or ``transcripts/NAME.samples.jsonl``."""
    return RunFolder(folder).transcripts / f"{name}{'.samples' if sampled else ''}.jsonl"


def earlier_file(file: Path) -> Path:
    """Where the replies of a transcript go that its last evaluation did not count. Nothing leaves it."""
    return file.parent / "earlier" / file.name


def lines_of(folder: Path, row: dict[str, Any], question_set: str) -> list[Line]:
    """The greedy replies that a row of scores.json counts, in the order of the questions; none where some are gone.

    Args:
        folder: that holds ``transcripts/``.
        row: of scores.json.
        question_set: the ``fingerprint`` in the same scores.json.
    """
    file = transcript_file(folder, row["name"])
    found: dict[int, Line] = {}
    for line in _stored_in(earlier_file(file), file):
        # Lines from before there were question sets were all of one.
        if line["made_by"] == row.get("made_by") and line.get("question_set", question_set) == question_set:
            found[line["index"]] = line
    counted = range(row["questions"])
    return [found[index] for index in counted] if all(index in found for index in counted) else []


class Transcript:
    """One transcript file: what of it can be used again, and what is added.

    Args:
        file: of ``transcript_file``.
        questions: what is asked.
        made_by: a hash of what answers and how; replies with another one are left alone.
        judge: the verdicts on a reply, by its text and the gold answer.
    """

    def __init__(
        self, file: Path, questions: list[Row], made_by: str, judge: Callable[[str, str], dict[str, bool]]
    ) -> None:
        self.file, self.questions, self.made_by, self._judge = file, questions, made_by, judge
        self.question_set = fingerprint(questions)
        self._stored = {_place(line): line for line in _stored_in(earlier_file(file), file)}
        self._end_last_line()
        self._occurrence = _occurrences([row["question"] for row in questions])
        self._known = self._by_question()
        self.lines: dict[Key, Line] = {}

    def has(self, key: Key) -> bool:
        """Is the reply of ``key`` there? One that was given to the same question of other questions serves too."""
        if key not in self.lines and (line := self._find(key)):
            self.lines[key] = self._placed(line, key)
        return key in self.lines

    def add(self, fresh: dict[Key, Line]) -> None:
        """Append replies as they are finished."""
        lines = {key: self._placed(line, key) for key, line in fresh.items()}
        append_jsonl(self.file, *lines.values())
        self.lines |= lines

    def finish(self, keys: list[Key]) -> list[Line]:
        """The lines in the order of ``keys``; the file holds just them, and all others are in ``earlier/``."""
        counted = [self.lines[key] for key in keys]
        earlier = earlier_file(self.file)
        kept = {_place(line): line for line in _stored_in(earlier)}
        places = {_place(line) for line in counted} | set(kept)
        moved = [line for line in self._stored.values() if _place(line) not in places and not self._is_now(line)]
        if moved:
            earlier.parent.mkdir(exist_ok=True)
            _write(earlier, [*kept.values(), *moved])
            print(f"{len(moved)} replies of other questions, settings or models are kept in {earlier}")
        _write(self.file, counted)
        return counted

    def _is_now(self, line: Line) -> bool:
        """Is this a line from before there were question sets, of which the reply is counted now?"""
        now = self.lines.get((line["index"], line.get("sample", 0)), {})
        return "question_set" not in line and all(line[name] == now.get(name) for name in ("made_by", "reply"))

    def _placed(self, line: Line, key: Key) -> Line:
        """A reply as the line of ``key``, with the verdicts by the gold answer as it is now."""
        row = self.questions[key[0]]
        own: Line = {"index": key[0], "question": row["question"], "gold": str(gold_answer(row["answer"]))}
        made = {"made_by": self.made_by, "question_set": self.question_set}
        return own | line | own | self._judge(line["reply"], own["gold"]) | made

    def _by_question(self) -> dict[tuple[str, int], dict[str | None, list[Line]]]:
        """The replies of the same making, by question and sample, and by the set that they were asked in."""
        known: dict[tuple[str, int], dict[str | None, list[Line]]] = defaultdict(lambda: defaultdict(list))
        for line in sorted(self._stored.values(), key=lambda line: line["index"]):
            if line["made_by"] == self.made_by:
                known[line["question"], line.get("sample", 0)][line.get("question_set")].append(line)
        return known

    def _find(self, key: Key) -> Line | None:
        """The stored reply for ``key``: of a question that stands twice, the first for the first and so on."""
        index, sample = key
        sets = self._known.get((self.questions[index]["question"], sample), {})
        number = self._occurrence[index]
        wanted = sorted(sets, key=lambda name: name != self.question_set)
        return next((sets[name][number] for name in wanted if number < len(sets[name])), None)

    def _end_last_line(self) -> None:
        """A kill can cut the last line short; what is appended must not go on in it."""
        if self.file.exists() and not self.file.read_bytes().endswith(b"\n"):
            _write(self.file, read_jsonl(self.file))


def _occurrences(questions: list[str]) -> list[int]:
    """How often each question stood before, for those that stand more than once."""
    seen: dict[str, int] = defaultdict(int)
    numbers = []
    for question in questions:
        numbers.append(seen[question])
        seen[question] += 1
    return numbers


def _place(line: Line) -> tuple[Any, ...]:
    return line["made_by"], line.get("question_set"), line["index"], line.get("sample", 0)


def _stored_in(*files: Path) -> list[Line]:
    needed = {"made_by", "index", "question", "gold", "reply"}
    return [line for file in files for line in read_jsonl(file) if needed <= set(line)]


def _write(file: Path, lines: Iterable[Line]) -> None:
    write_whole(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
