"""How much of a machine's memory a run takes where no card is, part by part.

Weights and activations are float32 there (4-bit matrices stay in 4 bits, or are unpacked to 16); transformers or vLLM
writes the rollouts. For a backward pass each layer keeps, for each token, what its norms and products were fed: 3.8 (h
+ q + i) numbers, for hidden size h, all heads' size q, MLP size i; with checkpointing it keeps its input alone. C's
allocator leaves holes besides: glibc before 2.38 cannot give out again a block that it aligned, so of blocks below 32
MB a pass costs about what all its layers hold once more, kept or not; larger ones go back to the system at once. Fitted
to the resident memory of passes of Qwen2.5-Coder-0.5B and SmolLM2-135M (512 to 4,096 tokens, with and without
checkpointing); whole runs beside it: benchmarks/README.md.
"""

from __future__ import annotations

from kit.planning.card_memory import ALWAYS, GIB, OPTIMIZER_BYTES, ROLLOUTS, UPDATE, Layout, Part, base_weights
from kit.planning.engine_choice import PROCESSOR_CACHE_GIB
from kit.planning.model_shape import ModelShape
from kit.settings.knobs import Settings

_NUMBER = 4  # bytes of a float32
_LIBRARIES_BYTES = 0.55 * GIB  # Python, torch, transformers, TRL, Unsloth
_VLLM_LIBRARIES_BYTES = 0.6 * GIB
_KEPT = 3.8
_HOLES, _HOLES_WITHOUT_GRADIENTS = 0.9, 0.2  # of what all layers hold in blocks of less than:
_OWN_BLOCK_BYTES = 32 * 2**20
_LOGIT_COPIES = 1  # made and used tile by tile; what was seen is one
_SAMPLER_COPIES = 4


def processor_parts(shape: ModelShape, settings: Settings, layout: Layout) -> list[Part]:
    """What a run needs of a machine's memory, part by part; rollouts of a whole step are written at once."""
    length = settings.max_prompt_length + layout.completion
    lora = shape.lora_parameters(settings.lora_rank)
    copies = 8 + OPTIMIZER_BYTES[settings.optim] + (4 if settings.beta else 0)
    tokens, written, prompts = (
        layout.rows * length, layout.sequences * length, layout.sequences * settings.max_prompt_length,
    )  # fmt: skip
    layer = _layer_bytes(shape, tokens)
    held = shape.layers * (shape.hidden * _NUMBER * tokens if layout.checkpointing else layer)
    again = layer if layout.checkpointing else 0.0  # the layer whose activations are computed again
    kept = f"{'the input' if layout.checkpointing else 'all'} of {shape.layers} layers kept"
    logits = _LOGIT_COPIES * layout.rows * layout.completion * shape.vocabulary * _NUMBER
    sampling = _SAMPLER_COPIES * layout.sequences * shape.vocabulary * _NUMBER
    prefill = _layer_bytes(shape, prompts) + _HOLES_WITHOUT_GRADIENTS * _holes(shape, prompts)
    rollouts = [
        Part(
            "KV cache", written * shape.kv_elements_per_token * _NUMBER, ROLLOUTS,
            f"{layout.sequences} completions x {length} tokens x {shape.kv_elements_per_token * _NUMBER:,} bytes",
        ),
        Part("a step of generation", sampling + prefill, ROLLOUTS, "the prompts, then a token"),
    ]  # fmt: skip
    if layout.vllm:
        copy, what = (2, "bfloat16, its own copy") if settings.cpu_dtype == "bfloat16" else (8, "float32, twice")
        weights = copy * (shape.linear_parameters + shape.other_parameters)  # twice: as read, and as its kernels want
        rollouts = [
            Part("vLLM's libraries", _VLLM_LIBRARIES_BYTES, ALWAYS, "the same for every model"),
            Part("vLLM's weights", weights, ALWAYS, what),
            Part("vLLM's cache", PROCESSOR_CACHE_GIB * GIB, ALWAYS, "set aside once"),
            Part("a step of generation", sampling, ROLLOUTS, "logits in float32"),
        ]
    return [
        Part("libraries", _LIBRARIES_BYTES, ALWAYS, "the same for every model"),
        base_weights(shape, settings, other_bytes=_NUMBER, unpacked=unpacks(settings)),
        Part("LoRA, gradients, optimizer", lora * copies, ALWAYS, f"{lora / 1e6:.1f} M x {copies} bytes"),
        *rollouts,
        Part("activations", held + again, UPDATE, f"{layout.rows} completions x {length} tokens, {kept}"),
        Part("holes they leave", _HOLES * _holes(shape, tokens), UPDATE, "blocks that are not used again"),
        Part("logits", logits, UPDATE, f"{layout.rows * layout.completion:,} tokens x {shape.vocabulary:,}"),
    ]  # fmt: skip


def answering_gib(shape: ModelShape, dtype: str, sequences: int) -> float:
    """What vLLM's processor build takes to answer ``sequences`` prompts at once with a model's weights in ``dtype``.

    The weights twice, as read and as its kernels want them; Qwen2.5-Coder-0.5B in float32: 6.9 GB seen.
    """
    weights = (shape.linear_parameters + shape.other_parameters) * (_NUMBER if dtype == "float32" else 2)
    logits = _SAMPLER_COPIES * sequences * shape.vocabulary * _NUMBER
    return (_LIBRARIES_BYTES + _VLLM_LIBRARIES_BYTES + 2 * weights + logits) / GIB + PROCESSOR_CACHE_GIB


def unpacks(settings: Settings) -> bool:
    """Where passes are in bfloat16, a base in 4 bits is unpacked once: see ``kit.models.unpacking``."""
    return settings.load_in_4bit and settings.cpu_dtype == "bfloat16"


def _layer_bytes(shape: ModelShape, tokens: int) -> float:
    """What a layer has in hand for so many tokens."""
    return _KEPT * (shape.hidden + shape.query + shape.intermediate) * _NUMBER * tokens


def _holes(shape: ModelShape, tokens: int) -> float:
    """What all layers have in hand in blocks that are not given back to the system."""
    small = [
        size for size in (shape.hidden, shape.query, shape.intermediate) if size * _NUMBER * tokens < _OWN_BLOCK_BYTES
    ]
    return shape.layers * _KEPT * sum(small) * _NUMBER * tokens
