"""Which questions a run was trained on, so that a score says if they are asked again, wherever they come from then."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder, read_jsonl
from kit.task.questions import Row


def write_trained_on(run: RunFolder, questions: list[Row]) -> None:
    """Keep a mark of each question in the run folder; the data themselves may be gone, or others, by then."""
    write_whole(run.trained_on_file, "".join(f"{_mark(row)}\n" for row in questions))


def number_trained_on(run: RunFolder) -> int | None:
    """How many questions the run was trained on, each counted as often as it stands in the data; ``None`` where the
    run does not say."""
    marks = _marks(run)
    return None if marks is None else len(marks)


def asked_in_training(run: RunFolder, questions: list[Row]) -> int | None:
    """How many of the questions the run was trained on; of one of an older kit, which did not keep them, those whose
    completions it kept. ``None`` where it does not say."""
    marks = _marks(run)
    if marks is None and run.samples_file.exists():
        marks = [_mark(sample) for sample in read_jsonl(run.samples_file)]
    if marks is None:
        return None
    trained_on = set(marks)
    return sum(_mark(row) in trained_on for row in questions)


def _marks(run: RunFolder) -> list[str] | None:
    file = run.trained_on_file
    return file.read_text(encoding="utf-8").split() if file.exists() else None


def _mark(row: Mapping[str, Any]) -> str:
    """The same for a question that is spaced or capitalised otherwise."""
    return hashlib.sha256(" ".join(str(row["question"]).split()).casefold().encode()).hexdigest()[:16]
