"""Several processes make one run: with the same settings, questions and rewards, in a folder that all of them see."""

from __future__ import annotations

import uuid
from typing import Any

from kit import ranks
from kit.settings.knobs import KNOBS, Settings
from kit.storage.run_folder import RunFolder
from kit.task.questions import Row, fingerprint
from kit.task.task import task_in_use
from kit.task.user_rewards import Rewards


def check_alike(settings: Settings, questions: list[Row], rewards: Rewards) -> None:
    """Refuse processes that were started with different commands, or that read different files.

    Raises:
        UserError: naming what differs.
    """
    known: dict[str, Any] = {
        name: value for name, value in settings.as_config().items()
        if name not in KNOBS or not KNOBS[name].metadata.get("changeable")
    }  # fmt: skip
    known["the task"] = task_in_use().source
    known["the questions"] = fingerprint(questions)
    for reward, weight in zip(*rewards, strict=True):
        known[f"the reward {reward.__name__}"] = (reward.source, weight)
    first, *others = ranks.gathered(known)
    differs = dict.fromkeys(name for other in others for name in (*first, *other) if first.get(name) != other.get(name))
    if differs:
        ranks.refuse(
            f"the processes of this run were not started alike ({', '.join(differs)}): give each machine the same "
            "command, and the same files"
        )


def check_seen_by_all(run: RunFolder) -> None:
    """Refuse a run folder that another machine does not see: the first process writes it, all read it.

    Raises:
        UserError: it names the process.
    """
    mark = run.path / ranks.told(f".seen-{uuid.uuid4().hex}")
    ranks.by_first(mark.touch)
    seen = ranks.gathered(mark.exists())
    ranks.by_first(mark.unlink)
    if not all(seen):
        ranks.refuse(
            f"--output-dir {run.path} is not seen by process {seen.index(False)} of {len(seen)}: name a folder that "
            "all machines share"
        )
