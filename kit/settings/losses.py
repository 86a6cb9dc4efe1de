"""The losses of TRL's GRPO trainer by name: what each does with the tokens of a step, and when to take it.

TRL's documentation has the papers. A loss is a field of GRPOConfig, or several where it makes no sense without others.
"""

from __future__ import annotations

from typing import Any

LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "dapo": ("the mean over all tokens of the step: each counts the same", {"loss_type": "dapo"}),
    "grpo": ("the mean over each completion first: among right ones short replies gain", {"loss_type": "grpo"}),
    "dr_grpo": ("the sum over --max-completion-length: no completion's length matters", {"loss_type": "dr_grpo"}),
    "bnpo": ("the mean over the tokens of a pass: depends on --batch-size", {"loss_type": "bnpo"}),
    "gspo": (
        "one ratio a completion: steadier where a batch is learned from several times",
        {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    ),
    "luspo": (
        "gspo, with each completion weighed by its length",
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    ),
    "cispo": (
        "ratios are capped and no token is left out: where num_iterations is above 1",
        {"loss_type": "cispo", "epsilon_high": 5.0},  # TRL's own would cap every weight at a fifth, on-policy too
    ),
    "sapo": ("ratios fade out instead of being clipped", {"loss_type": "sapo"}),
    "vespo": ("a smooth weight a completion; with --sampling-correction token_… alone", {"loss_type": "vespo"}),
}
WHEN_WHICH = "; ".join(f"{name}, {words}" for name, (words, _) in LOSSES.items())


def loss_fields(loss: str, scale_rewards: str, on_card: bool) -> dict[str, Any]:
    """The fields of GRPOConfig for a loss and a way to scale advantages, the same on a card and without one.

    Unsloth's trainer, which is a card's, has wishes of its own for two losses; what it finds set it leaves alone.
    """
    fields = LOSSES[loss][1] | {"scale_rewards": scale_rewards}
    if on_card and loss == "dapo":
        fields |= {"mask_truncated_completions": False, "epsilon_high": 0.2}  # TRL's own
    if on_card and loss == "dr_grpo" and scale_rewards == "group":
        fields["scale_rewards"] = None  # Unsloth's word for it, which it otherwise takes back
    return fields
