"""What machine is this, and what follows from it: number type, and whether vLLM can generate the rollouts.

``choose`` is a pure function of what ``detect`` found, so that it can be tested for cards that are not here.
"""

from __future__ import annotations

import gc
import importlib.util
from dataclasses import dataclass

from kit.errors import UserError


@dataclass(frozen=True)
class Machine:
    """The card, if there is one, with CUDA's compute capability and its memory in GiB."""

    card: str | None
    capability: tuple[int, int] = (0, 0)
    memory_gib: float = 0.0
    has_vllm: bool = False

    @property
    def has_cuda(self) -> bool:
        return self.card is not None


@dataclass(frozen=True)
class Choice:
    """What was chosen for a machine. ``dtype`` is a torch dtype's name; ``reason`` says why vLLM is on or off."""

    card: str | None
    dtype: str
    use_vllm: bool
    gradient_checkpointing: bool
    reason: str


def detect() -> Machine:
    """Look at this machine (imports torch)."""
    import torch

    if not torch.cuda.is_available():
        return Machine(card=None)
    properties = torch.cuda.get_device_properties(0)
    return Machine(
        card=properties.name,
        capability=(properties.major, properties.minor),
        memory_gib=properties.total_memory / 2**30,
        has_vllm=importlib.util.find_spec("vllm") is not None,
    )


def choose(machine: Machine, vllm: str = "auto") -> Choice:
    """Choose for a machine; ``vllm`` is the user's wish: ``auto``, ``off`` or ``require``.

    float16 below compute capability 8.0, whatever torch says: ``is_bf16_supported()`` is True on a T4, by emulation.
    float32 on a CPU: tiny models run faster in it than under bfloat16 autocast, and results repeat exactly. Activations
    are recomputed in the backward pass (gradient checkpointing) on a card only, where memory is short.

    Raises:
        UserError: vLLM is required and cannot be had.
    """
    if not machine.has_cuda:
        dtype, lack = "float32", "this machine has no CUDA card"
    else:
        dtype = "bfloat16" if machine.capability >= (8, 0) else "float16"
        lack = "" if machine.has_vllm else "vLLM is not installed"
    if vllm == "require" and lack:
        raise UserError(f"--vllm require, but {lack}: install requirements.txt on a CUDA machine, or use --vllm auto")
    use_vllm = vllm != "off" and not lack
    reason = "vLLM generates the rollouts."
    if not use_vllm:
        reason = f"vLLM fast inference is off ({lack or 'as asked'}): Unsloth generates the rollouts itself."
    return Choice(machine.card, dtype, use_vllm, gradient_checkpointing=machine.has_cuda, reason=reason)


def free_card() -> None:
    """Give back what models that are no longer used hold of the card's memory."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # does nothing where there is no card
