"""The completions of a step, as the reward functions saw them, and what metrics.jsonl says of them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from kit.grading import verdicts
from kit.storage.run_rows import SampleRow
from kit.training.sampling_weights import LIMITED

# name in metrics.jsonl → name in TRL's log
_FROM_TRL = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "groups_without_spread": "frac_reward_zero_std",
    "completion_length": "completions/mean_length",
    "truncated_rate": "completions/clipped_ratio",
    "entropy": "entropy",
    "kl": "kl",
    "sampling_difference": "sampling/sampling_logp_difference/mean",
    "sampling_ratio": "sampling/importance_sampling_ratio/mean",
    "sampling_limited": LIMITED,
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "seconds": "step_time",
    "adapter_norm": "adapter_norm",
    "memory_gib": "memory_gib",
    "skipped": "skipped",
}


@dataclass
class RolloutBatch:
    """Questions, checked answers and replies, one of each a completion, and what each reward function paid for them."""

    questions: list[str] = field(default_factory=list)
    golds: list[str] = field(default_factory=list)
    replies: list[str] = field(default_factory=list)
    rewards: dict[str, list[float | None]] = field(default_factory=dict)

    def samples(self, step: int) -> list[SampleRow]:
        """A line of samples.jsonl for each completion."""
        return [
            {
                "step": step,
                "question": question,
                "gold": gold,
                "reply": reply,
                "rewards": {name: results[index] for name, results in self.rewards.items()},
            }
            for index, (question, gold, reply) in enumerate(zip(self.questions, self.golds, self.replies, strict=True))
        ]


def measured(batch: RolloutBatch) -> dict[str, Any]:
    """What the kit itself says of a batch: verdicts on its replies, and each reward function alone."""
    judged = [verdicts(reply, gold) for reply, gold in zip(batch.replies, batch.golds, strict=True)]
    return {
        "format_rate": _mean([verdict["in_format"] for verdict in judged]),
        "correct_rate": _mean([verdict["strict"] for verdict in judged]),
        "rewards": {name: _mean(results) for name, results in batch.rewards.items()},
        "rewards_std": {name: _std(results) for name, results in batch.rewards.items()},
    }


def as_logged(logs: dict[str, Any]) -> dict[str, Any]:
    """What TRL says of a step, under the kit's names."""
    return {name: _finite(logs[key]) for name, key in _FROM_TRL.items() if key in logs}


def _mean(values: list[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def _std(values: list[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return round(statistics.pstdev(known), 4) if known else None


def _finite(value: float | None) -> float | None:
    """NaN and infinity are no JSON; TRL's own ``None`` says that no reward could judge."""
    return value if value is not None and math.isfinite(value) else None
