"""scores.json: rows new and old that still hold, their comparison, and all that a reader needs to repeat them."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.evaluation.answering import EvaluationSettings
from kit.evaluation.scores import Scores, add_comparisons, compare
from kit.evaluation.transcripts import lines_of
from kit.generation.artefacts import find_artefacts, fingerprint
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder
from kit.versions import installed_versions

_FIRST = ("base", "adapter", "merged")


def write_scores(
    folder: Path, rows: list[Scores], source: dict[str, str], settings: EvaluationSettings, baseline: str | None = None
) -> Scores:
    """Write scores.json and return what it holds.

    Rows of other artefacts, made before from the same questions and settings and of models that are still the same,
    stay in it. Comparisons and remarks are made anew from the transcripts.

    Args:
        folder: that holds ``transcripts/``.
        rows: of ``scores.row_of``.
        source: where the questions came from, with their fingerprint.
        settings: how they were put.
        baseline: name of the row to compare with, where it is not ``base``.
    """
    scores: Scores = {
        **source,
        "settings": settings.recorded(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": installed_versions(),
    }
    rows = _still_valid_rows(folder, scores, rows) + rows
    rows.sort(key=lambda row: _FIRST.index(row["name"]) if row["name"] in _FIRST else len(_FIRST))
    wanted = baseline or "base"
    scores["baseline"] = wanted if any(row["name"] == wanted for row in rows) else None
    greedy = {row["name"]: lines_of(folder, row, scores["fingerprint"]) for row in rows}
    scores["remarks"] = add_comparisons(rows, greedy, scores["baseline"])
    scores["rows"] = rows
    write_whole(RunFolder(folder).scores_file, json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    return scores


def _still_valid_rows(folder: Path, scores: Scores, rows: list[Scores]) -> list[Scores]:
    """Rows of other artefacts whose questions, prompt, model and transcript are still the same."""
    file = RunFolder(folder).scores_file
    try:
        before = read_scores(file)
    except UserError:
        return []
    same = before.get("fingerprint") == scores["fingerprint"] and all(
        _setting(before, name) == scores["settings"][name]
        for name in ("system_prompt", "max_completion_length", "decimal_mark", "task")
    )
    names = {row["name"] for row in rows}
    others = [row for row in before["rows"] if row["name"] not in names]
    kept = [row for row in others if same and _still_holds(folder, row, scores["fingerprint"])]
    if left := [row["name"] for row in others if row not in kept]:
        why = "their models or replies are no longer those" if same else "they answered other questions or settings"
        print(f"{file} no longer shows {', '.join(left)}: {why}. The command that scored them brings them back")
    paths = {row["name"]: row["path"] for row in rows}
    for name, old in [(row["name"], row.get("path")) for row in before["rows"] if row["name"] in names]:
        if old and Path(old).exists() and Path(old).resolve() != Path(paths[name]).resolve():  # and has not moved
            print(f"{file}: {name} is {paths[name]} from now on, no longer {old}")
    return _alike_in_samples(kept, before, scores, file)


def _alike_in_samples(kept: list[Scores], before: Scores, scores: Scores, file: Path) -> list[Scores]:
    """The rows without samples that were drawn otherwise than those of now: one table holds one kind."""
    drawn = [[_setting(each, name) for name in ("samples", "temperature", "seed")] for each in (before, scores)]
    sampled = [row["name"] for row in kept if row.get("samples")]
    if not sampled or drawn[0] == drawn[1]:
        return kept
    print(
        f"{file} no longer shows the samples of {', '.join(sampled)}: their number, temperature or seed was another. "
        "The command that drew them brings them back"
    )
    return [{name: value for name, value in row.items() if name != "samples"} for row in kept]


def _setting(scores: Scores, name: str) -> Any:
    """A setting of scores, also of ones from before there was such a setting."""
    return scores["settings"].get(name, getattr(EvaluationSettings, name, None))


def _still_holds(folder: Path, row: Scores, question_set: str) -> bool:
    """Does the path of a row still hold the model that was scored, and its transcript the replies?"""
    try:
        base_4bit = row["precision"].endswith(", 4-bit base")
        (artefact,) = find_artefacts([row["path"]], base_4bit, row["base"])
        return fingerprint(artefact) == row["fingerprint"] and bool(lines_of(folder, row, question_set))
    except (UserError, OSError, KeyError, ValueError):
        return False


def read_scores(file: Path) -> Scores:
    """What a scores.json holds.

    Raises:
        UserError: it is missing or something else.
    """
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))
        _ = scores["rows"], scores["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{file} is no scores.json: name one that evaluate.py wrote") from None
    return scores


def compare_files(one: Path, other: Path) -> tuple[str, list[tuple[str, Scores]], list[str]]:
    """A title, the paired comparison of each row that two scores.json share, by the transcripts beside them, and notes.

    Raises:
        UserError: a file is no scores.json, or the two share no row or no question.
    """
    before, after = read_scores(one), read_scores(other)
    rows = {row["name"]: row for row in after["rows"]}
    compared: list[tuple[str, Scores]] = []
    notes, lost = [], []
    for old, new in [(row, rows[row["name"]]) for row in before["rows"] if row["name"] in rows]:
        replies = []
        for file, scores, row in ((one, before, old), (other, after, new)):
            replies.append(lines_of(file.parent, row, scores.get("fingerprint", "")))
            lost += [] if replies[-1] else [f"{row['name']} of {file}"]
        if result := compare(*replies):
            compared.append((old["name"], result))
    gone = f"the replies of {', '.join(lost)} are not in transcripts/ beside it: score it again" if lost else ""
    if not compared:
        remedy = gone or "score both with the same --dataset and --limit"
        raise UserError(f"{one} and {other} share no row with the same questions: {remedy}")
    pairs = compared[0][1]["questions"]
    for file, count in ((one, before["rows"][0]["questions"]), (other, after["rows"][0]["questions"])):
        if alone := count - pairs:
            notes.append(f"left out, as they have no partner: {alone} of the {count} questions of {file}")
    settings = before["settings"] | after["settings"]
    differs = [name for name in settings if _setting(before, name) != _setting(after, name)]
    note = f"; other settings: {', '.join(differs)}" if differs else ""
    return f"{other} minus {one}, {pairs} questions{note}", compared, [*notes, *([gone] if gone else [])]
