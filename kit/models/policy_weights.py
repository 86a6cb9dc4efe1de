"""The policy's weights as an engine takes them: base and adapter merged, under the base's own names, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kit.models.unpacking import unpacked

if TYPE_CHECKING:
    import torch


def policy_weights(policy: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, weight) of each tensor of a PEFT model that is being trained, one at a time.

    A matrix that the adapter reaches is what its base holds, unpacked where it is in 4 bits, plus scale · B · A. A tied
    output head is left out: it is the embedding.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    model = policy.get_base_model()
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    reached = {path: module for path, module in model.named_modules() if isinstance(module, LoraLayer)}
    with torch.no_grad():
        for path, module in reached.items():
            plain = module.get_base_layer()
            yield f"{path}.weight", unpacked(plain) + module.get_delta_weight("default").float()
            if getattr(plain, "bias", None) is not None:
                yield f"{path}.bias", plain.bias.float()
        for name, parameter in model.named_parameters():
            if not any(name.startswith(f"{path}.") for path in reached) and not (tied and name == "lm_head.weight"):
                yield name, parameter.float()
