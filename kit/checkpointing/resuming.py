"""The same command again: which settings the run that is there has, how it is opened, and where it goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

from kit.checkpointing.checkpoints import newest_whole, step_of
from kit.checkpointing.mirror import Mirror, restored
from kit.checkpointing.same_run import check_same_run, default_of, goes_further, left_open
from kit.cli.errors import UserError
from kit.settings.knobs import BATCH_KNOBS, KNOBS, Settings, recorded_completions_per_step, shared_out
from kit.storage import run_lock
from kit.storage.atomic import replace_whole, write_whole
from kit.storage.run_folder import RunFolder, is_there, read_jsonl
from kit.task.questions import Row
from kit.task.user_rewards import Rewards


def _known_folders(settings: Settings) -> list[RunFolder]:
    """Where this run lies already: its folder, its mirror's copy, the one that would be continued first."""
    run = RunFolder(Path(settings.output_dir))
    mirror = mirror_of(run, settings)
    folders = [run, mirror.copy] if mirror else [run]
    return [] if settings.overwrite else [folder for folder in folders if folder.exists()]


def is_trained(settings: Settings) -> bool:
    """Is the run that the settings name finished, and are no more steps asked for than when it was?"""
    return any(folder.has_adapter and not goes_further(folder, settings) for folder in _known_folders(settings)[:1])


def as_recorded(settings: Settings) -> Settings:
    """The settings with what was left open as the run that is continued has it, whatever card it began on.

    Only the share of memory, and how the completions of a step are split into passes, are for the plan to choose anew.
    """
    known = _known_folders(settings)
    if not known:
        return settings
    recorded = known[0].read().get("settings", {})
    kept = {
        name: recorded.get(name, default_of(name))
        for name in left_open(settings) - {"gpu_memory_utilization"}
        if name in recorded or "before" in KNOBS[name].metadata
    }
    given = settings.given | (set(kept) - set(BATCH_KNOBS))
    (*split,) = settings.given & set(BATCH_KNOBS)
    if len(split) == 1 and set(BATCH_KNOBS) <= set(recorded):  # the other follows
        (other,) = set(BATCH_KNOBS) - set(split)
        kept[other] = recorded_completions_per_step(recorded) // getattr(settings, split[0]) // settings.gpus
        given |= {other}
    settings = dataclasses.replace(settings, **kept, given=given)
    is_shared_anew = set(BATCH_KNOBS) <= set(recorded) and settings.gpus != recorded.get("gpus", 1)
    return shared_out(settings, recorded_completions_per_step(recorded)) if is_shared_anew else settings


def cut_logs(run: RunFolder, step: int) -> None:
    """Forget what was logged after ``step``: those steps are done again, and no step may stand there twice."""
    for file in (run.metrics_file, run.samples_file):
        if file.exists():
            rows = [row for row in read_jsonl(file) if row["step"] <= step]
            write_whole(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for replies in run.held_out.glob("step-*.jsonl"):
        if replies.stem.removeprefix("step-").isdecimal() and step_of(replies.with_suffix("")) > step:
            replies.unlink()


def check_run_folder(settings: Settings, questions: list[Row] | None, rewards: Rewards | None = None) -> None:
    """Refuse an output folder that is occupied, unless it is this run, or a run and ``--overwrite`` was given."""
    run = RunFolder(Path(settings.output_dir))
    if is_there(run.path) and not run.path.is_dir():
        raise UserError(f"--output-dir {run.path} is a file: name a folder")
    existing = next(folder for folder in (run.path, *run.path.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        raise UserError(f"--output-dir {run.path} cannot be written to: name another folder")
    mirror = mirror_of(run, settings)
    copied = mirror is not None and mirror.copy.exists() and not settings.overwrite
    ours = {run.checkpoints.name} | ({path.name for path in restored(run)} if copied else set())
    if (
        run.path.exists()
        and not run.exists()
        and any(path.name not in ours and path.suffix != ".partial" for path in run.path.glob("[!.]*"))
    ):
        raise UserError(f"--output-dir {run.path} holds something that is no run: name another folder")
    for known in (run, mirror.copy if mirror else None):
        if known and known.exists() and not settings.overwrite:
            check_same_run(known, settings, questions, rewards)


def mirror_of(run: RunFolder, settings: Settings) -> Mirror | None:
    """The mirror that ``--mirror`` asks for.

    Raises:
        UserError: its copy would be the run folder itself, or its disk is not there.
    """
    if not settings.mirror:
        return None
    folder = Path(settings.mirror)
    held = next((place for place in (folder, folder.parent) if is_there(place)), None)
    if held and not held.is_dir():
        raise UserError(f"--mirror {settings.mirror}: {held} is a file: name a folder")
    if not held:
        raise UserError(
            f"--mirror {settings.mirror}: {folder.parent} is not there, so that the copy would not be where you want "
            "it: mount the Drive first, or make that folder"
        )
    mirror = Mirror(run, folder, say=print)
    if mirror.copy.path.resolve() == run.path.resolve():
        raise UserError(f"--mirror {settings.mirror} would copy {run.path} onto itself: name a folder on another disk")
    return mirror


def open_run_folder(settings: Settings) -> tuple[RunFolder, Mirror | None]:
    """The run folder, emptied with ``--overwrite``, else as it is or as its mirror has it; and the mirror.

    Raises:
        UserError: another program writes it now, or it cannot be emptied or restored.
    """
    run = RunFolder(Path(settings.output_dir))
    mirror = mirror_of(run, settings)
    run_lock.take(run.path)
    if settings.overwrite and run.path.exists():
        if mirror:  # first: where its copy stays, the run stays too
            mirror.start_anew()
        _empty(run.path.resolve())  # which may be a link to another disk
    run.checkpoints.mkdir(exist_ok=True)
    if mirror and mirror.restore(is_finished=run.exists() and run.has_adapter and not goes_further(run, settings)):
        print(f"restored from {mirror.copy.path}")
    if run.has_adapter and goes_further(run, settings):
        schedule = settings.lr_scheduler_type
        anew = "" if "constant" in schedule else f"; the {schedule} learning rate is that of so many steps from now on"
        print(f"{run.path} was finished after fewer steps: it goes on to step {settings.max_steps}{anew}")
        _set_back(run)
    return run, mirror


def _empty(folder: Path) -> None:
    """Raises ``UserError`` where something stays: the new run would go on from it."""
    try:
        for path in folder.iterdir():
            if path.name == run_lock.LOCK:
                continue
            remove = shutil.rmtree if path.is_dir() and not path.is_symlink() else os.unlink
            remove(path)
    except OSError as error:
        raise UserError(f"--overwrite cannot empty {folder} ({error}): name another --output-dir") from None


def _set_back(run: RunFolder) -> None:
    """A finished run becomes one that goes on: its adapter is one of the steps that may turn out to be the best.

    Where there is no checkpoint so late any more, these steps are done again, and the adapter is kept besides.
    """
    record = run.read()
    step = record.get("adapter", {}).get("step", record["settings"]["max_steps"])
    newest = newest_whole(run.checkpoints, say=print)
    if newest and step_of(newest) >= step:
        kept = run.best_adapter(step)
    else:
        kept = run.path / f"adapter-step-{step}"
        print(f"it has no checkpoint of step {step} or later: what it was until now is kept in {kept}")
    kept.parent.mkdir(exist_ok=True)
    replace_whole(run.adapter, kept)


def where_to_start(run: RunFolder, processes: int = 1) -> tuple[str | None, int]:
    """The checkpoint to go on from, ``None`` for the beginning, and its step, to which the logs are cut.

    ``processes`` are those of the run now; where it was begun by another number, a sentence says what that changes.
    """
    start = newest_whole(run.checkpoints, say=print)
    step = step_of(start) if start else 0
    if start:
        print(f"continuing {run.path} after step {step}")
        before = run.read()["settings"].get("gpus", 1) if run.exists() else processes
        if before != processes:
            print(
                f"so far by {before} processes, from now on by {processes}: as many completions a step, drawn with "
                "other random numbers"
            )
    elif run.exists():
        print(f"{run.path} was stopped before its first checkpoint: starting from the beginning")
    cut_logs(run, step)
    return (str(start) if start else None), step
