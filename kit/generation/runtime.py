"""Which engine an artefact runs on, in which number type, with how much room: known before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kit.cli.errors import UserError
from kit.generation.artefacts import Artefact, Kind
from kit.generation.server_engine import served_model
from kit.models.tensors import beyond_lora, changes_head
from kit.planning import hardware
from kit.planning.engine_choice import VllmNotLoaded, choose_engine
from kit.planning.model_shape import model_shape
from kit.storage.weight_files import is_quantized

# On a card vLLM multiplies every pair of factors by alpha / rank of the whole adapter; on a processor PEFT merges it.
_UNKNOWN_TO_VLLM = {
    "alpha_pattern": "has a scale for each module (alpha_pattern)",
    "rank_pattern": "has a rank for each module (rank_pattern)",
}


@dataclass(frozen=True)
class Server:
    """Where an artefact is served, and under which name; an empty one is the only one there."""

    address: str
    model: str = ""


@dataclass(frozen=True)
class Runtime:
    """What runs an artefact: the engine's name, its number type, and how the tables call that; ``server`` names the one
    that answers for it."""

    engine: str
    dtype: str
    precision: str
    base_4bit: bool = False
    server: Server | None = None


@dataclass(frozen=True)
class Room:
    """What an engine sets aside beforehand: tokens of a prompt and of a completion, prompts in one forward pass."""

    prompt_tokens: int
    completion_tokens: int
    batch_size: int = 64

    @property
    def tokens(self) -> int:
        """Of a prompt with its completion."""
        return self.prompt_tokens + self.completion_tokens


def _head(model: str) -> int | None:
    """The size of a model's attention heads, where its config.json is to be had and known."""
    try:
        return model_shape(model).head
    except UserError:
        return None


def _check_lora_of_vllm(adapter: Path) -> None:
    found = beyond_lora(adapter, _UNKNOWN_TO_VLLM)
    found += ["changes the output head"] if changes_head(adapter) else []
    if found:
        raise VllmNotLoaded(f"{adapter} {', and '.join(found)}, which vLLM's LoRA does not know")


def choose_runtime(
    artefact: Artefact, base_4bit: bool = False, vllm: str = "auto", dtype: str = "auto", server: Server | None = None
) -> Runtime:
    """What will run ``artefact`` on this machine.

    Args:
        artefact: what answers.
        base_4bit: put an adapter on the 4-bit base of its training.
        vllm: the user's wish: ``auto``, ``off`` or ``require``.
        dtype: the number type that Hugging Face weights are computed in; ``auto`` is the machine's own.
        server: that answers for it, in whichever number type.

    Raises:
        UserError: vLLM is required and cannot be had, the card has no such numbers, or the server no such model.
        VllmNotLoaded: it can be had, and its LoRA would answer for another adapter.
    """
    if server:
        name = served_model(server.address, server.model, artefact.path)
        return Runtime("server", "", f"as served, {name}", server=Server(server.address, name))
    if artefact.kind is Kind.GGUF:
        kind = artefact.number_type
        return Runtime("llama.cpp", kind or artefact.name, f"{kind} GGUF" if kind else "GGUF")
    in_4bit = base_4bit and artefact.kind is Kind.ADAPTER
    machine = hardware.detect()
    choice = choose_engine(machine, "off" if in_4bit else vllm, _head(artefact.base or artefact.path))
    if choice.use_vllm and machine.has_cuda and artefact.kind is Kind.ADAPTER:
        _check_lora_of_vllm(Path(artefact.path))
    if dtype == "bfloat16" and machine.has_cuda and choice.dtype != dtype:
        raise UserError(f"--dtype bfloat16: {machine.card} has none; leave it out, or take float32")
    if dtype == "bfloat16" and (slower := machine.slower_in_bfloat16):
        why = f"is {slower} times slower here than float32, since this processor only emulates it"
        print(f"{artefact.name}: --dtype bfloat16 {why}: leave it out")
    dtype = choice.dtype if dtype == "auto" else dtype
    base = f", {'4' if in_4bit else '16'}-bit base" if artefact.kind is Kind.ADAPTER else ""
    base = ", quantized" if is_quantized(artefact.path) else base
    return Runtime("vLLM" if choice.use_vllm else "transformers", dtype, dtype + base, in_4bit)
