"""How long will a run take, and how much comes over the network and onto the disk? Rough, and said to be so.

Writing a token reads all weights once, so it takes at least weights / memory bandwidth; below a floor of one launch
per kernel no card gets. Learning takes 2 operations for each parameter and token forward and 4 backward, with one
forward pass more to compute the activations again, and one to score vLLM's completions; below a floor of launches no
pass gets either. Real runs get a fraction of a card's speed. On an H100 with 0.5B a token of 32 completions took 5.6
ms, a pass 0.5 s; no smaller card has confirmed the fractions below yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kit.planning.card_memory import BITS_OF_4BIT, OPTIMIZER_BYTES, Layout
from kit.planning.gpus import figures_of
from kit.planning.model_shape import ModelShape
from kit.settings.knobs import Settings

_BANDWIDTH_SHARE, _SPEED_SHARE = 0.5, 0.25
_TOKEN_FLOOR_S = {True: 0.010, False: 0.035}  # with vLLM's graphs, and with a kernel launch for each operation
_WRITING_SHARE, _LEARNING_SHARE, _UNPACKING = 0.15, 0.8, 50.0  # of a processor's speed; and operations a 4-bit weight
_PASS_FLOOR_S = 0.5  # of a pass with its backward pass, or one that scores a step's completions
_LAYER_S = 0.005
# On a processor: vLLM's rate beside transformers', a pass in bfloat16 beside one in float32; seen on steps of
# Qwen2.5-Coder-0.5B with a 4-bit base (130 s became 56 to 78 s).
_VLLM_GAIN, _BFLOAT16_GAIN = 5.0, 1.8
_PROMPT_TOKENS, _COMPLETION_SHARE = 200, 0.4  # GSM8K with the kit's prompt; completions of usual length


@dataclass(frozen=True)
class RunCost:
    """Seconds for a step and its rollouts, and GB to download and to keep."""

    rollout_s: float
    update_s: float
    download_gb: float
    disk_gb: float

    @property
    def step_s(self) -> float:
        """Seconds for one step."""
        return self.rollout_s + self.update_s


def estimate_run_cost(shape: ModelShape, settings: Settings, layout: Layout, card: str) -> RunCost:
    """What a run with this layout on this card takes; NaN seconds where nobody knows how fast the card is."""
    bandwidth, speed = figures_of(card) or (math.nan, math.nan)
    step = settings.completions_per_card
    parameters = shape.linear_parameters + shape.other_parameters
    a_weight = BITS_OF_4BIT / 8 if settings.load_in_4bit else 2
    read = shape.linear_parameters * a_weight + shape.vocabulary * shape.hidden * 2
    a_token = max(read / (bandwidth * 1e9 * _BANDWIDTH_SHARE), _TOKEN_FLOOR_S[layout.vllm])  # NaN first: it stays
    rollout = layout.completion * a_token * -(-step // layout.sequences)
    tokens = step * (_PROMPT_TOKENS + _COMPLETION_SHARE * layout.completion)
    passes = 2 + 2 + 4 + (2 if layout.vllm else 0)
    launches = _PASS_FLOOR_S * (step / layout.rows + layout.vllm)
    update = max(passes * parameters * tokens / (speed * 1e12 * _SPEED_SHARE), launches)  # NaN first here too
    four_bit = read if settings.load_in_4bit else 0  # Unsloth fetches such weights for training, the others for merging
    return RunCost(rollout, update, *_sizes_gb(shape, settings, four_bit))


def estimate_run_cost_here(shape: ModelShape, settings: Settings, layout: Layout, flops: float) -> RunCost:
    """What a run with this layout takes on a processor that multiplies large float32 matrices at ``flops`` a second.

    Fitted to steps of Qwen2.5-Coder-0.5B and SmolLM2-135M on two cores, 4 and 8 completions at once. A token costs its
    products, unpacking the 4-bit weights once, and each layer's many small operations.
    """
    step, parameters = settings.completions_per_card, shape.linear_parameters + shape.other_parameters
    written = _COMPLETION_SHARE * layout.completion
    unpacked = _UNPACKING * shape.linear_parameters if settings.load_in_4bit else 0.0  # once for each token of them all
    rollout = written * ((step * 2 * parameters / _WRITING_SHARE + unpacked) / flops + shape.layers * _LAYER_S)
    passes = 2 + 2 + (2 if layout.checkpointing else 0)  # no gradient of the frozen weights is made
    update = passes * parameters * step * (_PROMPT_TOKENS + written) / (flops * _LEARNING_SHARE)
    rollout /= _VLLM_GAIN if layout.vllm else 1.0
    update /= _BFLOAT16_GAIN if settings.cpu_dtype == "bfloat16" else 1.0
    return RunCost(rollout, update, *_sizes_gb(shape, settings, 0.0))


def _sizes_gb(shape: ModelShape, settings: Settings, four_bit: float) -> tuple[float, float]:
    """(to download, on disk): the model, ``four_bit`` bytes of another copy of it, merged, checkpoints, adapter."""
    sixteen_bit = 2 * (shape.linear_parameters + shape.other_parameters)
    lora = shape.lora_parameters(settings.lora_rank)
    checkpoint = lora * (4 + OPTIMIZER_BYTES[settings.optim])
    disk = sixteen_bit * 2 + checkpoint * settings.keep_checkpoints + lora * 4
    return (sixteen_bit + four_bit) / 1e9, (disk + four_bit) / 1e9
