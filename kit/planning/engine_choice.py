"""vLLM or not, in which number type, and every reason why not: the only file that knows these sentences."""

from __future__ import annotations

from dataclasses import dataclass

from kit.cli.errors import UserError, first_line
from kit.planning.hardware import BFLOAT16_CAPABILITY, Machine

ROLLOUTS_WITHOUT = "Unsloth generates the rollouts itself"
NOT_ON_THIS_CARD = "Unsloth does not load vLLM on this card"
ANSWERS_WITHOUT = "Unsloth and transformers answer everything instead"


@dataclass(frozen=True)
class EngineChoice:
    """What was chosen for a machine. ``dtype`` is a torch dtype's name; ``reason`` says why vLLM is on or off."""

    card: str | None
    dtype: str
    use_vllm: bool
    gradient_checkpointing: bool
    reason: str


def choose_engine(machine: Machine, vllm: str = "auto") -> EngineChoice:
    """Choose for a machine; ``vllm`` is the user's wish: ``auto``, ``off`` or ``require``.

    float16 below compute capability 8.0, whatever torch says: ``is_bf16_supported()`` is True on a T4, by emulation.
    float32 on a CPU: tiny models run faster in it than under bfloat16 autocast, and results repeat exactly. Activations
    are recomputed in the backward pass (gradient checkpointing) on a card; on a processor the plan decides.

    Raises:
        UserError: vLLM is required and cannot be had.
    """
    lack = _lack(machine)
    if vllm == "require" and lack:
        raise UserError(f"--vllm require, but {lack}: install requirements.txt on a CUDA machine, or use --vllm auto")
    dtype = "bfloat16" if machine.capability >= BFLOAT16_CAPABILITY else "float16"
    use_vllm = vllm != "off" and not lack
    reason = "vLLM generates the rollouts."
    if not use_vllm:
        reason = f"vLLM fast inference is off ({lack or 'as asked'}): {ROLLOUTS_WITHOUT}."
    return EngineChoice(
        card=machine.card,
        dtype=dtype if machine.has_cuda else "float32",
        use_vllm=use_vllm,
        gradient_checkpointing=machine.has_cuda,
        reason=reason,
    )


def _lack(machine: Machine) -> str:
    """Why vLLM cannot run on this machine; empty where it can."""
    if not machine.has_cuda:
        return machine.lack
    if machine.platform == "win32":
        return "vLLM does not run on Windows itself, but it does in WSL2"
    return "" if machine.has_vllm else "vLLM is not installed"


def does_not_fit(share: float | None) -> str:
    """Why a plan is without vLLM although it could be loaded; ``share`` is the user's own, of the card's memory."""
    wish = f" with --gpu-memory-utilization {share:g}" if share is not None else ""
    return f"vLLM does not fit beside the training{wish}: {ROLLOUTS_WITHOUT}."


def did_not_load(error: Exception, artefact: str = "") -> str:
    """Why a run, or an artefact's row, is without vLLM although it was chosen."""
    return f"vLLM could not be loaded{f' for {artefact}' if artefact else ''} ({first_line(error)})"
