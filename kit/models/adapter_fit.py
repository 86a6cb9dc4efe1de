"""Does an adapter go with its base? PEFT drops what finds no module, and leaves at zero what finds no tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.models.tensors import Tensors


def check_fits(adapted: Any, adapter: Path, base: str) -> None:
    """Refuse an adapter of which a part would be left out.

    Args:
        adapted: PEFT's model, with the adapter on its base or on a skeleton of it.
        adapter: its folder.
        base: what it stands on.

    Raises:
        UserError: with the first tensor that has no place, or that is missing.
    """
    from peft import get_peft_model_state_dict

    wanted = _factors(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    found = _factors(Tensors(adapter))
    for names, what in (
        (found - wanted, "have no place there"),
        (wanted - found, "that its config asks for are lacking"),
    ):
        if names:
            raise UserError(
                f"{adapter} does not go with {base}: {len(names)} of its tensors {what}, such as {min(names)}: name "
                "the base that it was trained on, with --base"
            )


def _factors(names: Any) -> set[str]:
    """LoRA's own tensors, by the names of today's PEFT."""
    lora = (name.replace(".default.", ".") for name in names if "lora_" in name)
    return {name.removesuffix(".weight") if "lora_magnitude" in name else name for name in lora}
