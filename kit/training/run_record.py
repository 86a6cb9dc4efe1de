"""What a run leaves behind: run.yaml, and the adapter that says that it is finished."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from kit.planning.plan import Plan
from kit.settings.knobs import Settings
from kit.storage.atomic import replace_whole
from kit.task.questions import Row, fingerprint
from kit.task.task import task_in_use
from kit.task.user_rewards import Reward
from kit.versions import installed_versions


def describe_run(settings: Settings, questions: list[Row], rewards: list[Reward], weights) -> dict[str, Any]:
    """What run.yaml holds: enough to repeat the run, and for the later scripts to need no other path."""
    names = [reward.__name__ for reward in rewards]
    return {
        "command": shlex.join(["python", *sys.argv]),
        "settings": settings.as_config(),
        "system_prompt": settings.prompt(),
        "reward_weights": dict(zip(names, weights, strict=True)),
        "reward_sources": {reward.__name__: reward.source for reward in rewards if reward.source},
        "task": {"source": task_in_use().source, "example": task_in_use().example.question},
        "data": {"questions": len(questions), "fingerprint": fingerprint(questions)},
        "versions": installed_versions(),
    }


def describe_trainer(plan: Plan, arguments: dict[str, Any], trainer: Any, mended: str) -> dict[str, Any]:
    """What run.yaml holds besides, once the trainer is there: the machine and what the plan says that it takes of its
    memory, what the trainer really received, and what was mended of the base's tokens, if anything was."""
    values = trainer.args.to_dict()  # tokens masked
    choice, machine = plan.choice, plan.asked.machine
    memory = {"memory_gib": round(machine.memory_gib, 1), "planned_gib": round(plan.peak_gib, 2) or None}
    return {
        **({"mended": mended} if mended else {}),
        "machine": {
            "card": choice.card,
            "driver": machine.driver or None,
            "dtype": choice.dtype,
            "vllm": choice.use_vllm,
            **memory,
        },
        "trainer": {name: values[name] for name in arguments},
    }


def save_weights(policy: Any, tokenizer: Any, folder: Path) -> None:
    """Write the policy's adapter and its tokenizer into ``folder``, under a temporary name until they are whole."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    policy.save_pretrained(partial, selected_adapters=["default"])  # not the frozen copy that a KL term compares with
    tokenizer.save_pretrained(partial)
    replace_whole(partial, folder)
