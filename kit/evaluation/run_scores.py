"""The scores that a run's report and model card show: of the models that it has now."""

from __future__ import annotations

from pathlib import Path

from kit.cli.errors import UserError
from kit.evaluation.scores import Scores
from kit.evaluation.scores_file import exports_of, fingerprint_now, path_of, read_scores, save, with_rows
from kit.evaluation.transcripts import lines_of
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
    if own == scores["rows"] or not all(lines_of(run.path, row, scores.get("fingerprint", "")) for row in own):
        return scores | {"rows": own}  # without the replies nothing can be compared anew
    return with_rows(run.path, scores, own, scores.get("baseline") or "base")


def drop_outdated_rows(run: RunFolder) -> None:
    """Take the rows out of a run's scores.json whose models in it are others by now, after a training or an export,
    before a report or a card shows them; their replies stay. What is said of its export is said as it is now."""
    if not (scores := known_scores(run)):
        return
    outdated = [row for row in scores["rows"] if _is_another_now(run, row)]
    if any(_exported(run, row) for row in outdated):  # with the export those go that it did not make again
        outdated += [row for row in scores["rows"] if (file := _exported(run, row)) and not file.exists()]
    kept = [row for row in scores["rows"] if row not in outdated]
    exports, before = exports_of(scores, kept), scores.get("exports", [])
    if gone := [row["name"] for row in scores["rows"] if row in outdated]:
        print(f"{run.scores_file} no longer shows {', '.join(gone)}: evaluate.py scores what is there now")
    if not kept:
        run.scores_file.unlink()
    elif gone:
        save(run.path, with_rows(run.path, scores, kept, scores.get("baseline") or "base"))
    elif exports != before:  # the comparisons stay, whether their replies are still there or not
        remarks = [*exports, *(remark for remark in scores.get("remarks", []) if remark not in before)]
        save(run.path, scores | {"exports": exports, "remarks": remarks})


def _is_another_now(run: RunFolder, row: Scores) -> bool:
    """Is another model of this run where the row's was? A file that was deleted is no other; of an adapter that is gone
    the training goes on."""
    if (place := _place_in(run, row)) is None:
        return False
    try:
        return fingerprint_now(row | {"path": str(place)}) != row["fingerprint"]
    except (UserError, OSError, KeyError, ValueError):
        return place.resolve() == run.adapter.resolve() and not run.has_adapter


def _place_in(run: RunFolder, row: Scores) -> Path | None:
    """Where in the run's folder a row's model lies, also where that was renamed or is seen from another place since;
    ``None`` for models that lie, or lay, elsewhere: those have other names than the run's own."""
    path, name = path_of(row), row["name"]
    if run.path.resolve() in path.resolve().parents:
        return path
    if path.exists():
        return None
    if path.parent.name == run.gguf.name and (path.name.endswith(f"{name}.gguf") or name == "adapter-gguf"):
        return run.gguf / path.name
    return run.path / name if name == path.name and name in (run.adapter.name, run.merged.name) else None


def _exported(run: RunFolder, row: Scores) -> Path | None:
    """The place of a row that is of the run's merged weights or GGUF files."""
    place = _place_in(run, row)
    return place if place and run.holds_as_export(place) else None


def _is_of_another(row: Scores, run: RunFolder) -> bool:
    """Rows of a further run have its name in theirs; where this run was renamed, another may lie in its old place."""
    other = run_folder_of(path_of(row))
    return other is not None and other.path.resolve() != run.path.resolve() and "-" in row["name"]
