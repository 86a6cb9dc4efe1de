"""The adapter's weights in the policy: put back from a file, and refused where they are no numbers any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.cli.errors import UserError


def restore_adapter(model: Any, checkpoint: Path) -> None:
    """Put the adapter of a checkpoint into the model.

    transformers' own resuming leaves it out where there is a second adapter: with a KL term TRL keeps a frozen copy,
    ``ref``, in a folder of its own, and only such folders are loaded then. Training would go on from zero, silently.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(checkpoint / "adapter_model.safetensors"), adapter_name="default")


def check_weights(model: Any, step: int) -> None:
    """Refuse to save, over a good checkpoint, weights that are no numbers any more.

    Raises:
        UserError: a trainable weight is NaN or infinite.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and not bool(parameter.isfinite().all()):
            raise UserError(
                f"after step {step} the adapter holds NaN or infinite weights, which are not saved: start anew with "
                "--overwrite and a smaller --learning-rate or --max-grad-norm"
            )
