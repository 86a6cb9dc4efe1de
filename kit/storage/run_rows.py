"""What a line of metrics.jsonl and one of samples.jsonl hold: the columns that people keep and other files read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class HeldOutRow(TypedDict):
    """What the policy answers, greedily, to the questions that are set aside. Shares have ``accuracy`` and the ``low``
    and ``high`` end of their 95 % interval."""

    questions: int
    strict: dict[str, float]
    flexible: dict[str, float]
    format_rate: float
    completion_length: float
    truncated_rate: float
    right: str  # a digit a question: 2 right by both readings, 1 by the flexible one alone, 0 wrong
    seconds: float


class StepRow(TypedDict, total=False):
    """One step of a run. Means are over the completions of its batch, lengths in tokens, KL and entropy in nats.

    Step 0 is the base, of which there is the held-out score alone; a second one is of the policy after a warm start.
    """

    step: int
    again: bool  # learned from the same batch as the step before (``num_iterations`` above 1)
    loss: float | None
    reward: float | None  # weighted sum
    reward_std: float | None
    rewards: dict[str, float | None]  # each function's mean, unweighted
    rewards_std: dict[str, float | None]
    groups_without_spread: float | None  # share of groups in which all completions earn the same
    format_rate: float | None  # share in format
    correct_rate: float | None  # share right by the strict reading
    completion_length: float | None
    truncated_rate: float | None  # share cut off
    entropy: float | None  # a token
    kl: float | None  # from the base
    sampling_ratio: float | None  # the policy's probability of a completion over vLLM's, their mean
    # share of completions, or tokens, that the sampling correction leaves out or caps; not on a card
    sampling_limited: float | None
    sampling_difference: float | None  # between vLLM's log-probabilities and the trainer's, a token
    learning_rate: float | None
    grad_norm: float | None
    adapter_norm: float  # of the B matrices, which begin at zero, as one vector
    memory_gib: float  # that this run takes of its card after the step; on a processor the most that it has had
    skipped: bool  # the optimizer left the step out, for infinite gradients
    seconds: float | None
    heldout: HeldOutRow  # of the policy after this step
    warm_start: bool  # of step 0: after the warm start
    alarms: list[dict[str, str]]


def policy_of(row: Mapping[str, Any]) -> str:
    """Which policy a line of metrics.jsonl, or what run.yaml says of the adapter, is of: step 0 may be two.

    >>> [policy_of(row) for row in ({"step": 0}, {"step": 0, "warm_start": True}, {"step": 20})]
    ['base', 'warm start', 'step 20']
    """
    if row["step"]:
        return f"step {row['step']}"
    return "warm start" if row.get("warm_start") else "base"


class SampleRow(TypedDict):
    """One completion."""

    step: int
    question: str
    gold: str  # the checked answer
    reply: str
    rewards: dict[str, float | None]  # unweighted; ``None`` where a function could not judge it
