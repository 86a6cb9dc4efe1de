"""scores.json: rows new and old that still hold, their comparison, and all that a reader needs to repeat them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.evaluation.answering import EvaluationSettings
from kit.evaluation.cautions import of_exports
from kit.evaluation.grader_hash import grader_hash
from kit.evaluation.scores import Scores, add_comparisons, compare
from kit.evaluation.transcripts import lines_of
from kit.generation.artefacts import find_artefacts, fingerprint
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder, run_folder_of
from kit.versions import installed_versions

_OF_SERVER = "server"
_FIRST = ("base", "adapter", "merged")
_OF_SAMPLES = ("samples", "temperature", "seed")  # greedy replies do not depend on them


def write_scores(
    folder: Path, rows: list[Scores], source: dict[str, str], settings: EvaluationSettings,
    baseline: str | None = None, cautions: Mapping[str, list[str]] | None = None,
) -> Scores:  # fmt: skip
    """Write scores.json and return what it holds.

    Rows of other artefacts, made before from the same questions and settings and of models that are still the same,
    stay in it. Comparisons and remarks are made anew from the transcripts.

    Args:
        folder: that holds ``transcripts/``.
        rows: of ``scores.row_of``.
        source: where the questions came from, with their fingerprint.
        settings: how they were put.
        baseline: name of the row to compare with, where it is not ``base``.
        cautions: what the reader is to know, of ``cautions.cautions``.
    """
    scores: Scores = {
        **source,
        "settings": settings.recorded(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": installed_versions(),
        "grader": grader_hash(),
    }
    kept, known = _still_valid_rows(folder, scores, rows)
    scores["cautions"] = known | dict(cautions or {})
    rows = kept + rows
    rows.sort(key=lambda row: _FIRST.index(row["name"]) if row["name"] in _FIRST else len(_FIRST))
    scores = with_rows(folder, scores, rows, baseline or "base")
    save(folder, scores)
    return scores


def save(folder: Path, scores: Scores) -> None:
    """Write scores.json as it is."""
    write_whole(RunFolder(folder).scores_file, json.dumps(scores, indent=2, ensure_ascii=False) + "\n")


def with_rows(folder: Path, scores: Scores, rows: list[Scores], baseline: str) -> Scores:
    """The scores with these rows, compared with the one that ``baseline`` names, where it is among them; cautions and
    remarks are those of these rows."""
    named = {run.path.resolve().name for row in rows if (run := run_folder_of(path_of(row)))}
    known = {name: said for name, said in _cautions_in(scores).items() if said and (name in named or _are_lost(rows))}
    compared = baseline if any(row["name"] == baseline for row in rows) else None
    greedy = {row["name"]: lines_of(folder, row, scores.get("fingerprint", "")) for row in rows}
    exports = exports_of(scores, rows)
    remarks = [*chain(*known.values()), *exports, *_by_other_engines(rows), *add_comparisons(rows, greedy, compared)]
    return scores | {
        "baseline": compared, "cautions": known, "exports": exports, "remarks": remarks, "rows": rows,
    }  # fmt: skip


def _by_other_engines(rows: list[Scores]) -> list[str]:
    """A sentence where Hugging Face weights were not all answered alike, as in two calls; GGUF files never are."""
    how = {}
    for row in rows:
        engine, precision = row.get("engine"), row.get("precision", "")
        if engine is None or path_of(row).suffix == ".gguf":
            continue
        how[row["name"]] = f"{engine} in {precision if engine == _OF_SERVER else precision.partition(',')[0]}"
    if len(set(how.values())) < 2:
        return []
    each = ", ".join(f"{name} by {made}" for name, made in how.items())
    is_here = not any(made.startswith(_OF_SERVER) for made in how.values())
    way_out = ". --vllm and --dtype choose one for all" if is_here else ""
    return [f"not answered alike: {each}; near-ties are decided otherwise then{way_out}"]


def exports_of(scores: Scores, rows: list[Scores]) -> list[str]:
    """What is said of the exports that rows are of, as it is now; where their files are not seen, as it was."""
    return scores.get("exports", []) if _are_lost(rows) else of_exports(row["path"] for row in rows if row.get("path"))


def path_of(row: Scores) -> Path:
    """Where a row's model was, as it was named; rows of older kits may not say."""
    return Path(row.get("path") or "")


def _are_lost(rows: list[Scores]) -> bool:
    """Are none of the models but the base where they were, as from another working directory?"""
    others = [row for row in rows if row["name"] != "base"]
    return bool(others) and not any(path_of(row).exists() for row in others)


def _cautions_in(scores: Scores) -> dict[str, list[str]]:
    """The cautions by the names of runs; older kits wrote none."""
    known = scores.get("cautions", {})
    return known if isinstance(known, dict) else {}


def _still_valid_rows(folder: Path, scores: Scores, rows: list[Scores]) -> tuple[list[Scores], dict[str, list[str]]]:
    """Rows of other artefacts whose questions, prompt, model and transcript are still the same, and what is known of
    their runs."""
    file = RunFolder(folder).scores_file
    try:
        before = read_scores(file)
    except UserError:
        return [], {}
    why = ""
    if before.get("fingerprint") != scores["fingerprint"] or any(
        _setting(before, name) != scores["settings"][name]
        for name in ("system_prompt", "max_completion_length", "decimal_mark", "task")
    ):
        why = "they answered other questions or settings"
    elif before.get("grader") != scores["grader"]:
        why = "they were judged by another version of the kit or of the task"
    names = {row["name"] for row in rows}
    others = [row for row in before["rows"] if row["name"] not in names]
    kept = [row for row in others if not why and _still_holds(folder, row, scores["fingerprint"])]
    if left := [row["name"] for row in others if row not in kept]:
        why = why or "their models or replies are no longer those"
        print(f"{file} no longer shows {', '.join(left)}: {why}. The command that scored them brings them back")
    paths = {row["name"]: row["path"] for row in rows}
    for name, old in [(row["name"], row.get("path")) for row in before["rows"] if row["name"] in names]:
        if old and Path(old).exists() and Path(old).resolve() != Path(paths[name]).resolve():  # and has not moved
            print(f"{file}: {name} is {paths[name]} from now on, no longer {old}")
    return _alike_in_samples(kept, before, scores, file), _cautions_in(before) if kept else {}


def _alike_in_samples(kept: list[Scores], before: Scores, scores: Scores, file: Path) -> list[Scores]:
    """The rows without samples that were drawn otherwise than those of now: one table holds one kind."""
    drawn = [[_setting(each, name) for name in _OF_SAMPLES] for each in (before, scores)]
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


def fingerprint_now(row: Scores) -> str:
    """Of the model that a row's path holds now; raises as ``find_artefacts`` does."""
    (artefact,) = find_artefacts([row["path"]], row["precision"].endswith(", 4-bit base"), row["base"])
    return fingerprint(artefact)


def _still_holds(folder: Path, row: Scores, question_set: str) -> bool:
    """Does the path of a row still hold the model that was scored, and its transcript the replies?"""
    try:
        return fingerprint_now(row) == row["fingerprint"] and bool(lines_of(folder, row, question_set))
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
    settings = [name for name in before["settings"] | after["settings"] if name not in _OF_SAMPLES]
    differs = [name for name in settings if _setting(before, name) != _setting(after, name)]
    note = f"; other settings: {', '.join(differs)}" if differs else ""
    for old, new in [(row, rows[row["name"]]) for row in before["rows"] if row["name"] in rows]:
        how = [", ".join(str(row.get(name)) for name in ("engine", "precision")) for row in (old, new)]
        if how[0] != how[1]:
            notes.append(f"{old['name']} was computed otherwise: {how[0]}, then {how[1]}")
    if before.get("grader") != after.get("grader"):
        notes.append("judged by two versions of the kit or of the task: evaluate.py, once more for both, judges the "
                     "same replies alike")  # fmt: skip
    return f"{other} minus {one}, {pairs} questions{note}", compared, [*notes, *([gone] if gone else [])]
