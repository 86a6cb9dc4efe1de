"""The same command again: does it continue the run that is there, and from where?"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from kit.checkpointing.checkpoints import newest_whole, step_of
from kit.checkpointing.mirror import Mirror, restored
from kit.cli.errors import UserError
from kit.settings.further_fields import goes_without_saying
from kit.settings.knobs import BATCH_KNOBS, KNOBS, Settings, recorded_completions_per_step, shared_out
from kit.storage import run_lock
from kit.storage.atomic import replace_whole, write_whole
from kit.storage.run_folder import RunFolder, is_there, read_jsonl
from kit.task.questions import Row, fingerprint
from kit.task.task import DEFAULT, is_task_of, task_in_use
from kit.task.user_rewards import Reward

# The fingerprint of their questions is compared.
_DATA_KNOBS = ("dataset", "dataset_config", "split", "question_column", "answer_column", "skip_bad_rows")
# Compared as what they say, as functions, as steps; older versions recorded the last two, which counted for nothing.
_ELSEWHERE = {"task", "rewards", "num_train_epochs", "warmup_ratio"}


Rewards = tuple[list[Reward], list[float]]  # with their weights


def check_same_run(
    run: RunFolder, settings: Settings, questions: list[Row] | None, rewards: Rewards | None = None
) -> None:
    """Refuse to continue a run with settings, questions or rewards that would make another run of it.

    Raises:
        UserError: naming each of them, from and to.
    """
    recorded = run.read()
    if "adopted" in recorded:
        raise UserError(
            f"--output-dir {run.path} holds the export of an adapter that was trained elsewhere: name another folder"
        )
    before = {
        name: value for name, value in recorded.get("settings", {}).items() if not goes_without_saying(name, value)
    }
    now = settings.as_config()
    free = {name for name, spec in KNOBS.items() if spec.metadata.get("free")} | {*_DATA_KNOBS, *BATCH_KNOBS}
    free |= _left_open(settings) | _ELSEWHERE
    differs = [
        f"{name} {before.get(name, _default(name))} → {now.get(name)}"
        for name in dict.fromkeys([*before, *now])
        if name not in free
        and not (name == "max_steps" and goes_further(run, settings))
        and before.get(name, _default(name)) != now.get(name)
        and not _is_moved_base(name, now, run)
    ]
    given = {name: now[name] for name in BATCH_KNOBS if name in settings.given}
    wanted = math.prod(given.values()) * settings.gpus
    if set(BATCH_KNOBS) <= set(before):
        a_step = recorded_completions_per_step(before)
        if wanted != a_step if len(given) == 2 else a_step % wanted:
            cards = [f"{settings.gpus} cards"] if settings.gpus > 1 else []
            differs.append(f"completions a step {a_step} → {' times '.join([*given, *cards])} {wanted}")
    if questions and recorded.get("data", {}).get("fingerprint") not in (None, fingerprint(questions)):
        differs.append("the questions are others")
    differs += _other_task(recorded)
    differs += _other_rewards(recorded, rewards) if rewards else []
    if differs:
        raise UserError(
            f"--output-dir {run.path} holds a run of other settings ({'; '.join(differs)}): with its own settings it "
            "would be continued; name another folder, or add --overwrite to start anew in it"
        )


def goes_further(run: RunFolder, settings: Settings) -> bool:
    """Are more steps wanted than the run was made for?"""
    return settings.max_steps > int(run.read().get("settings", {}).get("max_steps", settings.max_steps))


def _other_task(recorded: dict[str, Any]) -> list[str]:
    task, name = task_in_use(), recorded.get("settings", {}).get("task", DEFAULT)
    if is_task_of(recorded, task):
        return []
    return [f"the task {name} → {task.name}" if task.name != name else f"the task {name} is another than at the start"]


def _other_rewards(recorded: dict[str, Any], rewards: Rewards) -> list[str]:
    """What is not as recorded: a function is what its name, its weight and its source say, wherever its file lies."""
    before, sources = recorded.get("reward_weights"), recorded.get("reward_sources")
    if before is None:
        return []
    now = {reward.__name__: weight for reward, weight in zip(*rewards, strict=True)}
    if sources is None and set(before) != set(now):  # an older version recorded what the functions call themselves
        own = [getattr(reward.function, "__name__", reward.__name__) for reward in rewards[0]]
        now = dict(zip(own, now.values(), strict=True))
    if set(before) != set(now):
        return [f"rewards {', '.join(before)} → {', '.join(now)}"]
    differs = [f"the weight of {name} {before[name]:g} → {now[name]:g}" for name in now if before[name] != now[name]]
    if sources is None:  # recorded by an older version
        return differs
    changed = [reward.__name__ for reward in rewards[0] if sources.get(reward.__name__) != reward.source]
    return differs + [f"the reward function {name} is another one than at the start" for name in changed]


def _default(name: str) -> Any:
    """What a run had that was recorded before the setting ``name`` was there."""
    return KNOBS[name].metadata.get("before", KNOBS[name].default) if name in KNOBS else None


def _left_open(settings: Settings) -> set[str]:
    return {name for name, spec in KNOBS.items() if spec.metadata.get("open")} - settings.given


def _known_folders(settings: Settings) -> list[RunFolder]:
    """Where this run lies already: its folder, its mirror's copy, the one that would be continued first."""
    run = RunFolder(Path(settings.output_dir))
    mirror = mirror_of(run, settings)
    folders = [run, mirror.copy] if mirror else [run]
    return [] if settings.overwrite else [folder for folder in folders if folder.exists()]


def is_trained(settings: Settings) -> bool:
    """Is the run that the settings name trained to the last step that they ask for?"""
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
        name: recorded.get(name, _default(name))
        for name in _left_open(settings) - {"gpu_memory_utilization"}
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


def _is_moved_base(name: str, now: dict[str, Any], run: RunFolder) -> bool:
    return name == "model" and Path(run.base_model()).resolve() == Path(now["model"]).resolve()


def cut_logs(run: RunFolder, step: int) -> None:
    """Forget what was logged after ``step``: those steps are done again, and no step may stand there twice."""
    for file in (run.metrics_file, run.samples_file):
        if file.exists():
            rows = [row for row in read_jsonl(file) if row["step"] <= step]
            write_whole(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


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
    if mirror and mirror.restore():
        print(f"restored from {mirror.copy.path}")
    if run.has_adapter and goes_further(run, settings):
        schedule = settings.lr_scheduler_type
        anew = "" if "constant" in schedule else f"; the {schedule} learning rate is that of so many steps from now on"
        print(f"{run.path} was finished with fewer steps: it goes on to step {settings.max_steps}{anew}")
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
