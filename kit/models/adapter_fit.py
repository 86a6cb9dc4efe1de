"""Does an adapter go with its base? PEFT drops what finds no module, and leaves at zero what finds no tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.models.tensors import Tensors, is_tied
from kit.storage.weight_files import ADAPTER_CONFIG


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
    if found and not found & wanted:
        raise UserError(
            f"{adapter}: its tensors are not called as PEFT calls them on {base} ({min(found)} in place of "
            f"{min(wanted, default='none')}): save it with PEFT's save_pretrained, or name its own base with --base"
        )
    for names, what, further in (
        (found - wanted, "have no place there", ""),
        (wanted - found, "that its config asks for are lacking", ", or say in its adapter_config.json which layers it "
                         "was trained in (layers_to_transform)"),
    ):  # fmt: skip
        if names:
            raise UserError(
                f"{adapter} does not go with {base}: {len(names)} of its tensors {what}, such as {min(names)}: name "
                f"the base that it was trained on, with --base{further}"
            )


def check_embedding(adapter: Path, base: str) -> None:
    """Refuse an adapter on an embedding that is the output head too: it changes one of the two, merged both.

    Raises:
        UserError: with what to train instead.
    """
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    whole = config.get("modules_to_save") or []
    trains = any("lora_embedding" in name for name in Tensors(adapter)) or _names(whole, "embed_tokens")
    head = any("lm_head.lora" in name for name in Tensors(adapter)) or _names(whole, "lm_head")
    if trains and not (head or config.get("ensure_weight_tying")) and is_tied(base):
        raise UserError(
            f"{adapter} changes the embedding, which is the output head of {base} too and stays as it was there: "
            "merged, it would change both. Train it again without embed_tokens"
        )


def _names(modules: list[str], name: str) -> bool:
    return any(module.split(".")[-1] == name for module in modules)


def _factors(names: Any) -> set[str]:
    """LoRA's own tensors, by the names of today's PEFT."""
    lora = (name.replace(".default.", ".") for name in names if "lora_" in name)
    return {name.removesuffix(".weight") if "lora_magnitude" in name else name for name in lora}
