"""Is what a run folder holds the run that is asked for: the same settings, questions, task and rewards?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.settings.further_fields import goes_without_saying
from kit.settings.knobs import BATCH_KNOBS, KNOBS, Settings, recorded_completions_per_step
from kit.storage.run_folder import RunFolder
from kit.task.questions import Row, fingerprint
from kit.task.task import DEFAULT, is_task_of, task_in_use
from kit.task.user_rewards import Rewards

# The fingerprint of their questions is compared.
_DATA_KNOBS = ("dataset", "dataset_config", "split", "question_column", "answer_column", "skip_bad_rows")
# Not compared by their names: a task is compared by what its file says, rewards as functions, epochs as steps. The
# last two were recorded by older versions, where they had no effect.
_ELSEWHERE = {"task", "rewards", "num_train_epochs", "warmup_ratio"}


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
    changeable = {name for name, spec in KNOBS.items() if spec.metadata.get("changeable")}
    changeable |= {*_DATA_KNOBS, *BATCH_KNOBS} | left_open(settings) | _ELSEWHERE
    differs = [
        f"{name} {before.get(name, default_of(name))} → {now.get(name)}"
        for name in dict.fromkeys([*before, *now])
        if name not in changeable
        and not (name == "max_steps" and goes_further(run, settings))
        and before.get(name, default_of(name)) != now.get(name)
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


def default_of(name: str) -> Any:
    """What a run had that was recorded before the setting ``name`` was there."""
    return KNOBS[name].metadata.get("before", KNOBS[name].default) if name in KNOBS else None


def left_open(settings: Settings) -> set[str]:
    """The knobs that are chosen for the machine and that the user did not set."""
    return {name for name, spec in KNOBS.items() if spec.metadata.get("chosen")} - settings.given


def _is_moved_base(name: str, now: dict[str, Any], run: RunFolder) -> bool:
    return name == "model" and Path(run.base_model()).resolve() == Path(now["model"]).resolve()
