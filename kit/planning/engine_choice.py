"""vLLM or not, in which number type, with what in its environment, and why not."""

from __future__ import annotations

from dataclasses import dataclass

from kit.cli.errors import UserError, first_line
from kit.planning.hardware import BFLOAT16_CAPABILITY, Machine

# What vLLM's processor build reads when it is imported: the engine in this process, threads where the system puts them,
# GiB of cache, and its log from errors on. Its kernels take these heads: vllm/v1/attention/backends/cpu_attn.py
PROCESSOR_CACHE_GIB = 1
PROCESSOR_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": str(PROCESSOR_CACHE_GIB),
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR",
}  # fmt: skip
# What vLLM reads on a card: under WSL2 it has no pinned memory unless it is told to, and does not load without
# (vllm-project/vllm#47387), and some fifty lines of an engine's own log hide what the kit says.
CARD_ENVIRONMENT = {"VLLM_WSL2_ENABLE_PIN_MEMORY": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
_PROCESSOR_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
ROLLOUTS_WITHOUT = "Unsloth generates the rollouts itself"
NOT_ON_THIS_CARD = "Unsloth does not load vLLM on this card"
ANSWERS_WITHOUT = "Unsloth and transformers answer everything instead"


class VllmNotLoaded(UserError):
    """vLLM is there and cannot be loaded, or cannot hold what is wanted; the sentence says why."""


@dataclass(frozen=True)
class EngineChoice:
    """What was chosen for a machine. ``dtype`` is a torch dtype's name; ``reason`` says why vLLM is on or off."""

    card: str | None
    dtype: str
    use_vllm: bool
    gradient_checkpointing: bool
    reason: str


def choose_engine(machine: Machine, vllm: str = "auto", head: int | None = None) -> EngineChoice:
    """Choose for a machine; ``vllm`` is the user's wish: ``auto``, ``off`` or ``require``.

    float16 below compute capability 8.0, whatever torch says: ``is_bf16_supported()`` is True on a T4, by emulation.
    On a processor weights are float32; passes over them may be in bfloat16 (``Settings.cpu_dtype``). Activations are
    recomputed in the backward pass (gradient checkpointing) on a card; on a processor the plan decides.

    Args:
        machine: what ``detect`` found.
        vllm: the wish.
        head: the size of the model's attention heads, where it is known; on a processor vLLM takes not every one.

    Raises:
        UserError: vLLM is required and cannot be had.
    """
    lack = _lack(machine, head)
    if vllm == "require" and lack:
        raise UserError(
            f"--vllm require, but {lack}: use --vllm auto, or a CUDA machine with the packages for its card (--plan "
            "--gpu NAME names them)"
        )
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


def _lack(machine: Machine, head: int | None) -> str:
    """Why vLLM cannot run on this machine; empty where it can."""
    if not machine.has_cuda and not machine.has_vllm:
        return machine.lack
    if not machine.has_cuda:
        known = head is None or head in _PROCESSOR_HEADS
        return "" if known else f"on a processor it takes no attention heads of {head}"
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
