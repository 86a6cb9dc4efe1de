"""scores.json: rows new and old that still hold, their comparison, and all that a reader needs to repeat them."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

from kit.answers import Plan, transcript_file
from kit.artefacts import find_artefacts, fingerprint
from kit.disk import write_whole
from kit.errors import UserError
from kit.runs import read_jsonl
from kit.scoreboard import Scores, add_comparisons, compare
from kit.versions import installed_versions

NAME = "scores.json"
_FIRST = ("base", "adapter", "merged")


def write_scores(
    folder: Path, rows: list[Scores], source: dict[str, str], plan: Plan, baseline: str | None = None
) -> Scores:
    """Write scores.json and return what it holds.

    Rows of other artefacts, made before from the same questions and settings and of models that are still the same,
    stay in it. Comparisons and remarks are made anew from the transcripts.

    Args:
        folder: that holds ``transcripts/``.
        rows: of ``scoreboard.row_of``.
        source: where the questions came from, with their fingerprint.
        plan: how they were put.
        baseline: path of the artefact to compare with, where it is not the row named ``base``.
    """
    scores: Scores = {
        **source,
        "settings": plan.settings(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": installed_versions(),
    }
    rows = _still_valid_rows(folder / NAME, scores, rows) + rows
    rows.sort(key=lambda row: _FIRST.index(row["name"]) if row["name"] in _FIRST else len(_FIRST))
    against = [row["name"] for row in rows if (row["path"] == baseline if baseline else row["name"] == "base")]
    scores["baseline"] = against[0] if against else None
    greedy = {row["name"]: read_jsonl(transcript_file(folder, row["name"])) for row in rows}
    scores["remarks"] = add_comparisons(rows, greedy, scores["baseline"])
    scores["rows"] = rows
    write_whole(folder / NAME, json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    return scores


def _still_valid_rows(file: Path, scores: Scores, rows: list[Scores]) -> list[Scores]:
    if not file.exists():
        return []
    before = json.loads(file.read_text(encoding="utf-8"))
    if any(before.get(key) != scores[key] for key in ("fingerprint", "settings")):
        return []
    names = {row["name"] for row in rows}
    return [row for row in before["rows"] if row["name"] not in names and _is_the_same(row)]


def _is_the_same(row: Scores) -> bool:
    """Does the path of a row still hold the model that was scored?"""
    try:
        (artefact,) = find_artefacts([row["path"]])
    except UserError:
        return False
    return fingerprint(replace(artefact, base=row.get("base") or artefact.base)) == row.get("fingerprint")


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


def compare_files(one: Path, other: Path) -> tuple[str, list[tuple[str, Scores]]]:
    """A title, and the paired comparison of each row that two scores.json share, from the transcripts beside them.

    Raises:
        UserError: a file is no scores.json, or the two share no row or no question.
    """
    before, after = read_scores(one), read_scores(other)
    names = {row["name"] for row in after["rows"]}
    compared = []
    for name in [row["name"] for row in before["rows"] if row["name"] in names]:
        old, new = (read_jsonl(transcript_file(file.parent, name)) for file in (one, other))
        if result := compare(old, new):
            compared.append((name, result))
    if not compared:
        raise UserError(
            f"{one} and {other} share no row with the same questions: score both with the same --dataset and --limit"
        )
    settings = before["settings"] | after["settings"]
    differs = [name for name in settings if before["settings"].get(name) != after["settings"].get(name)]
    note = f"; other settings: {', '.join(differs)}" if differs else ""
    return f"{other} minus {one}, {compared[0][1]['questions']} questions{note}", compared
