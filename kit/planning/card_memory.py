"""How much of a card's memory a run takes, part by part, from first principles.

Per parameter: 4-bit weights 4.5 bits (NF4: 4, and one float32 scale for each 64), 16-bit weights 2 bytes, an adapter's
weight 4 bytes and as much for its gradient, its optimizer state 2 bytes (8-bit Adam: two moments) or 8 (float32). Per
token: the KV cache holds 2 bytes for each element of one key and one value in each layer. Logits are never there as a
whole: Unsloth makes them in float32 for some rows, or some of the vocabulary, at a time, and their gradient over them.
vLLM and training share the base weights, so these count once. What the activations come to is compared with tensors
that live at once by tests/gpu/test_imitation.py. What first principles do not tell was measured on an H100 (NVML, three
runs of 0.5B): the context, and what passes take beyond activations and logits. On cards of up to 24.5 GiB Unsloth's
pieces are smaller, so there it is more than they need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kit.planning.model_shape import ModelShape
from kit.settings.knobs import Settings

GIB = 2**30
_CONTEXT_BYTES = 0.7 * GIB  # CUDA context, cuBLAS workspaces, kernels; the same for every model; measured
_BUFFER_BYTES = 1.0 * GIB  # of a pass, beyond its activations and logits; measured
BITS_OF_4BIT = 4.5
OPTIMIZER_BYTES = {"adamw_8bit": 2, "paged_adamw_8bit": 2, "adamw_torch": 8, "adamw_torch_fused": 8}
_LOGIT_BYTES = 4  # float32; this and what follows: unsloth_zoo/fused_losses/fused_linear.py
_LOGIT_TILE_BYTES = 256 * 2**20  # a tile of the vocabulary, on cards of up to 24.5 GiB
_LEAST_LOGITS, _FEWEST_ROWS, _MOST_ROWS = 512 * 151_936, 512, 4096  # a chunk of rows, on larger cards
_PREFILL_TOKENS = 2048  # vLLM's tokens in one forward pass, as Unsloth sets it for caches of up to 4 GiB
_SAMPLER_COPIES = 10  # float32 copies of the logits in vLLM's sampler, from the table in unsloth_zoo/vllm_utils.py
_GRAPHS, _LEAST_GRAPH_BYTES, _MOST_GRAPH_BYTES = 172, 0.15 * GIB, 1.0 * GIB  # unsloth_zoo/vllm_utils.py
_SLACK = 0.05  # pieces that torch's allocator holds and cannot use

_COUNTED_BY_VLLM = (  # not the context, which is there before it looks: vllm/utils/mem_utils.py, memory_profiling
    "base weights", "vLLM's weights", "vLLM's CUDA graphs", "KV cache", "vLLM's reserve",
    "a step of generation",
)  # fmt: skip

_OUTSIDE = ", outside its share"  # vllm/v1/worker/gpu/model_runner.py of 0.26: profile_cudagraph_memory is 0

ALWAYS, ROLLOUTS, SCORING, UPDATE = "always", "rollouts", "scoring", "update"


@dataclass(frozen=True)
class Layout:
    """How the work of a step is laid out in memory.

    Args:
        vllm: vLLM writes the rollouts; otherwise Unsloth does.
        standby: vLLM gives its KV cache back while the adapter is updated.
        rows: completions in one forward and backward pass.
        sequences: completions that are written at the same time.
        completion: length at which a completion is cut off, in tokens.
        reserve: bytes that vLLM may take beyond what it is reckoned to need.
        checkpointing: activations are computed again in the backward pass, not kept; on a card always.
        graphs_in_share: vLLM counts its CUDA graphs in its share; 0.26 does not, and takes them besides.
        scoring_pieces: in how many pieces Unsloth is told to score a step, and a pass of the update in as many as it
            has rows at most; 0 leaves it as many rows at once as it thinks fit.
    """

    vllm: bool
    standby: bool
    rows: int
    sequences: int
    completion: int
    reserve: float = 0.0
    checkpointing: bool = True
    graphs_in_share: bool = True
    scoring_pieces: int = 0

    @property
    def cache_phase(self) -> str:
        """When the KV cache is held."""
        return ALWAYS if self.vllm and not self.standby else ROLLOUTS


@dataclass(frozen=True)
class Part:
    """One part of the memory: what for, how many bytes, in which phase of a step, and where the number comes from."""

    name: str
    bytes: float
    phase: str
    how: str


def memory_parts(shape: ModelShape, settings: Settings, layout: Layout, scoring_rows: int | None = None) -> list[Part]:
    """What a run needs, part by part; with ``scoring_rows``, what it takes when it scores so many rows at once."""
    length = settings.max_prompt_length + layout.completion
    lora = shape.lora_parameters(settings.lora_rank)
    copies = 8 + OPTIMIZER_BYTES[settings.optim] + (4 if settings.beta else 0)
    kv = layout.sequences * length * shape.kv_elements_per_token * 2
    parts = [
        Part("CUDA context", _CONTEXT_BYTES, ALWAYS, "the same for every model"),
        base_weights(shape, settings),
        Part("LoRA, gradients, optimizer", lora * copies, ALWAYS, f"{lora / 1e6:.1f} M x {copies} bytes"),
    ]
    if layout.vllm:
        graphs = min(max(_GRAPHS * shape.hidden * shape.layers * 4, _LEAST_GRAPH_BYTES), _MOST_GRAPH_BYTES)
        parts += [
            Part("vLLM's weights", lora * 4, ALWAYS, "the base is shared; the adapter twice in 16 bits"),
            Part(
                f"vLLM's CUDA graphs{'' if layout.graphs_in_share else _OUTSIDE}",
                graphs,
                ALWAYS,
                "Unsloth's estimate by width and depth",
            ),
            Part(
                "vLLM's reserve", layout.reserve, layout.cache_phase, "should its own peak be larger; else more cache"
            ),
        ]
    tokens_in_flight = f"{layout.sequences} completions x {length} tokens x {shape.kv_elements_per_token * 2:,} bytes"
    parts += [
        Part("KV cache", kv, layout.cache_phase, tokens_in_flight),
        Part("a step of generation", _generation_bytes(shape, settings, layout), ROLLOUTS, "the prompts, then a token"),
    ]
    if layout.vllm:  # TRL scores vLLM's completions again, to correct for the difference between the two
        rows = scoring_rows or layout.rows
        parts += _pass("scoring", rows, length, _forward_bytes(rows * length, shape), shape, SCORING)
    # unsloth/kernels/fast_lora.py works in place, in 16 bits: what it keeps of one layer, and room for a third as much
    activations = layout.rows * length * 2 * (16 * shape.hidden + 2 * shape.key_value + 4 * shape.intermediate)
    return parts + _pass("the update", layout.rows, length, activations, shape, UPDATE)


def taken_parts(
    shape: ModelShape, settings: Settings, layout: Layout, free_bytes: float, usable_bytes: float
) -> tuple[list[Part], int]:
    """What a run takes on a card with ``free_bytes``, of which ``usable_bytes`` are for it: Unsloth scores as many rows
    at once as its own estimate allows, whatever else there is. Where that is too much, the second value is the number
    of pieces that it must be told to score in; else 0.

    Source of the estimate: unsloth_zoo/rl_replacements.py, autotune_batch_and_chunks; of the pieces:
    unsloth/models/rl_replacements.py, unsloth_grpo_mini_batch.
    """
    step, length = settings.completions_per_card, settings.max_prompt_length + layout.completion
    left = 0.8 * (free_bytes - phase_bytes(memory_parts(shape, settings, layout), ALWAYS))

    def allows(rows: int) -> bool:
        return 16 * rows * length * (shape.hidden + rows / step * shape.vocabulary / 4) <= left

    most = max(layout.rows, next((rows for rows in range(step, 0, -1) if allows(rows)), 0))
    for rows in range(most, layout.rows, -1):
        pieces = step // rows
        parts = memory_parts(shape, settings, layout, scoring_rows=math.ceil(step / pieces))
        if peak_bytes(parts) <= usable_bytes:
            return parts, 0 if rows == most else pieces
    return memory_parts(shape, settings, layout), 0 if most == layout.rows else math.ceil(step / layout.rows)


def peak_bytes(parts: list[Part]) -> float:
    """The most memory at any time: what is always there, and the largest phase, with the allocator's slack."""
    phases = {part.phase for part in parts} - {ALWAYS}
    return (1 + _SLACK) * (phase_bytes(parts, ALWAYS) + max(phase_bytes(parts, phase) for phase in phases))


def phase_bytes(parts: list[Part], phase: str) -> float:
    """The bytes of one phase alone."""
    return sum(part.bytes for part in parts if part.phase == phase)


def vllm_bytes(parts: list[Part]) -> float:
    """What vLLM must be allowed: it counts its weights, its cache, and its own peak."""
    return sum(part.bytes for part in parts if part.name in _COUNTED_BY_VLLM)


def base_weights(shape: ModelShape, settings: Settings, other_bytes: int = 2, unpacked: bool = False) -> Part:
    """The frozen base; ``other_bytes`` for each weight that is not held in 4 bits or, ``unpacked``, in 16."""
    in_4bit = 16 if unpacked else BITS_OF_4BIT
    bits = in_4bit if settings.load_in_4bit else 8 * other_bytes
    matrices, rest = shape.linear_parameters, shape.other_parameters
    how = f"{matrices / 1e6:.0f} M x {bits:g} bits, {rest / 1e6:.0f} M of the vocabulary x {8 * other_bytes} bits"
    return Part("base weights", matrices * bits / 8 + rest * other_bytes, ALWAYS, how)


def _generation_bytes(shape: ModelShape, settings: Settings, layout: Layout) -> float:
    copies = _SAMPLER_COPIES if layout.vllm else 2
    logits = copies * layout.sequences * shape.vocabulary * 4
    prompts = layout.sequences * settings.max_prompt_length
    return max(logits, _forward_bytes(min(prompts, _PREFILL_TOKENS) if layout.vllm else prompts, shape))


def _forward_bytes(tokens: int, shape: ModelShape) -> float:
    """The activations of a pass without gradients, at their most: in a layer's MLP."""
    return tokens * 2 * (6 * shape.hidden + 3 * shape.intermediate)


def _pass(name: str, rows: int, length: int, activations: float, shape: ModelShape, phase: str) -> list[Part]:
    """The activations of a pass over ``rows`` completions, as many logits as are there at a time, and the rest."""
    return [
        Part(f"buffers of {name}", _BUFFER_BYTES, phase, "measured on a card: kernels, offloading, pieces"),
        Part(f"activations of {name}", activations, phase, f"{rows} completions x {length} tokens, a layer at a time"),
        Part(f"logits of {name}", _logit_bytes(rows * length, shape), phase, "some rows or tokens at a time"),
    ]


def _logit_bytes(tokens: int, shape: ModelShape) -> float:
    """The larger of a tile and a chunk: which of the two Unsloth takes depends on the card."""
    rows = max(_FEWEST_ROWS, _LEAST_LOGITS // shape.vocabulary, tokens * shape.hidden // shape.vocabulary)
    return max(_LOGIT_TILE_BYTES, min(rows, _MOST_ROWS, tokens) * shape.vocabulary * _LOGIT_BYTES)
