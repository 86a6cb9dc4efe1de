"""The scores that a run's report and model card show: of the models that it has now."""

from __future__ import annotations

import json
from pathlib import Path

from kit.cli.errors import UserError
from kit.evaluation.cautions import of_exports
from kit.evaluation.scores import Scores
from kit.evaluation.scores_file import fingerprint_now, read_scores, with_rows, write_rows
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder, run_folder_of


def known_scores(run: RunFolder) -> Scores | None:
    """What the run's scores.json holds; ``None`` where there is none, or none with a row, or what is no whole one."""
    try:
        scores = read_scores(run.scores_file)
    except UserError:
        return None
    return scores if scores["rows"] else None


def own_scores(run: RunFolder) -> Scores | None:
    """As ``known_scores``, without rows of other runs and what is said of them."""
    scores = known_scores(run)
    own = [row for row in scores["rows"] if not _is_of_another(row, run)] if scores else []
    if not scores or not own:
        return None
    return scores if own == scores["rows"] else with_rows(run.path, scores, own, scores.get("baseline") or "base")


def drop_outdated_rows(run: RunFolder) -> None:
    """Take the rows out of a run's scores.json whose models in it are others by now, after a training or an export,
    before a report or a card shows them; their replies stay. What is said of its export is said as it is now."""
    if not (scores := known_scores(run)):
        return
    kept = [row for row in scores["rows"] if not _is_outdated(run, row)]
    exports, before = of_exports(row["path"] for row in kept), scores.get("exports", [])
    if gone := [row["name"] for row in scores["rows"] if row not in kept]:
        print(f"{run.scores_file} no longer shows {', '.join(gone)}: evaluate.py scores what is there now")
    if not kept:
        run.scores_file.unlink()
    elif gone:
        write_rows(run.path, scores, kept, scores.get("baseline") or "base")
    elif exports != before:  # the comparisons stay, whether their replies are still there or not
        remarks = [*exports, *(remark for remark in scores.get("remarks", []) if remark not in before)]
        scores |= {"exports": exports, "remarks": remarks}
        write_whole(run.scores_file, json.dumps(scores, indent=2, ensure_ascii=False) + "\n")


def _is_outdated(run: RunFolder, row: Scores) -> bool:
    """Is another model of this run where the row's was? A file that was deleted is no other; of an adapter that is gone
    the training goes on."""
    path = Path(row["path"])
    if run.path.resolve() not in path.resolve().parents:
        return False
    try:
        return fingerprint_now(row) != row["fingerprint"]
    except (UserError, OSError, KeyError, ValueError):
        return path.resolve() == run.adapter.resolve() and not run.has_adapter


def _is_of_another(row: Scores, run: RunFolder) -> bool:
    other = run_folder_of(Path(row["path"]))
    return other is not None and other.path.resolve() != run.path.resolve()
