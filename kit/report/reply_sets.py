"""Where the replies of a run lie: transcripts/ of its scores, held_out/ of its training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kit.report.replies import Line, ReplySet
from kit.storage.run_folder import RunFolder, read_jsonl

_VERDICTS = {"question", "gold", "reply", "strict", "flexible", "in_format"}


def of_scores(run: RunFolder, scores: dict[str, Any]) -> ReplySet | None:
    """The replies that the rows of scores.json count; ``None`` where none of them are there any more."""
    from kit.evaluation.transcripts import lines_of

    names, answers, gone = [], [], []
    for row in scores["rows"]:
        lines = lines_of(run.path, row, scores.get("fingerprint", ""))
        if not lines:
            gone.append(row["name"])
            continue
        names.append(row["name"])
        answers.append({line["index"]: line for line in lines if set(line) >= _VERDICTS})
    if not names:
        return None
    baseline = scores.get("baseline") or "base"
    before = names.index(baseline) if baseline in names else 0
    others = [place for place in range(len(names)) if place != before]
    after = names.index("adapter") if "adapter" in names and baseline != "adapter" else (others or [before])[0]
    return ReplySet("questions of the scores", "transcripts/", names, answers, before, after, gone)


def of_training(run: RunFolder, kept: int | None) -> ReplySet | None:
    """The replies to the questions that were set aside, a row a held-out score; ``None`` where there are none.

    Args:
        run: its folder.
        kept: the step whose adapter the run has, which is compared with the base; ``None`` where that is not known yet.
    """
    files = [(place, file) for file in run.held_out.glob("*.jsonl") if (place := _order(file)) is not None]
    read = [(file.stem, _numbered(read_jsonl(file))) for _, file in sorted(files)]
    found = [(stem, lines) for stem, lines in read if lines]
    if not found:
        return None
    stems = [stem for stem, _ in found]
    after = stems.index(f"step-{kept}") if f"step-{kept}" in stems else len(stems) - 1
    if kept == 0 and "warm-start" in stems:
        after = stems.index("warm-start")
    names = [stem.replace("-", " ") for stem in stems]
    return ReplySet("held-out questions of training", "held_out/", names, [lines for _, lines in found], 0, after)


def _numbered(lines: list[Line]) -> dict[int, Line]:
    """By place; of a whole written solution, which the data may have, the answer is what is shown."""
    return {
        place: line | {"gold": str(line["gold"]).rsplit("####", 1)[-1].strip()}
        for place, line in enumerate(lines)
        if set(line) >= _VERDICTS
    }


def _order(file: Path) -> int | None:
    """Base, warm start, then the steps; ``None`` for a file that somebody else put there."""
    if file.stem in ("base", "warm-start"):
        return ("base", "warm-start").index(file.stem) - 2
    step = re.fullmatch(r"step-(\d+)", file.stem)
    return int(step[1]) if step else None
