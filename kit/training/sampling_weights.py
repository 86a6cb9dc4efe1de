"""How much of a step does the sampling correction leave out or cap? TRL weighs by the ratio and says not how often.

On a card nobody says it: Unsloth's trainer weighs inside its compiled loss.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

LIMITED = "sampling/importance_sampling_ratio/limited"  # beside TRL's own minimum, mean and maximum
# What TRL's trainer calls the cap: since 1.6, and before, in the set for older cards.
CAPS = ("vllm_importance_sampling_clip_max", "vllm_importance_sampling_cap")


def log_limited(trainer: Any) -> None:
    """Have ``trainer`` log the share of completions, or of their tokens, whose weight is 0 or the most it may be."""
    score = trainer._generate_and_score_completions

    @wraps(score)
    def scored(inputs: Any) -> Any:
        output = score(inputs)
        weights = output.get("importance_sampling_ratio")
        if weights is not None:
            most = next(getattr(trainer, name) for name in CAPS if hasattr(trainer, name))
            trainer._metrics["train"][LIMITED].append(limited_share(weights, output["completion_mask"], most))
        return output

    trainer._generate_and_score_completions = scored


def limited_share(weights: Any, mask: Any, most: float | None) -> float:
    """The share of weights that are 0 or ``most``.

    Args:
        weights: (completions, tokens), or (completions, 1) where a completion has one.
        mask: (completions, tokens), 1 for tokens of a completion.
        most: the cap; ``None`` without one.
    """
    limited = weights == 0
    if most is not None:
        limited |= weights >= most
    if weights.shape[1] == 1:
        return limited.float().mean().item()
    return (limited & mask.bool()).sum().item() / max(1, int(mask.sum()))
