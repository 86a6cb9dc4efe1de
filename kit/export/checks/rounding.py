"""Is each tensor of a GGUF that of the f16 GGUF, which answers as merged does, but for rounding?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.export.checks.check import Check
from kit.llama_cpp.gguf import GgufFile

if TYPE_CHECKING:
    import torch

# Of what rounding to the nearest of evenly spaced values leaves, times (benchmarks/rounding.py): the types of three
# bits and more leave up to 1.1, those of two bits 1.75.
ROUNDINGS = 2.0
# A matrix of zeros is once as far from f16's as that is large, another matrix of its size 1.4 times. The coarsest
# types (tq1_0, tq2_0: a block's largest weight, its negative, 0) leave 0.83 of a real model's.
MAX_ERROR = 0.97
_OTHER_16_BITS = 0.005  # f16's and bf16's roundings together; f32 (norms and biases in all files) has none
_BLOCK = 32  # weights with a scale of their own


def is_f16_rounded(gguf: GgufFile, readable: GgufFile, f16: GgufFile) -> Check:
    """A file holds the tensors of f16, each as near as its type can be. One tensor is held at a time.

    Args:
        gguf: the file.
        readable: the file itself, or a copy of it in a type that can be read here.
        f16: what it was made from.
    """
    import torch

    ours, theirs = set(gguf.names), set(f16.names)
    wrong = [f"{name} is missing" for name in sorted(theirs - ours)]
    wrong += [f"{name} is not in f16" for name in sorted(ours - theirs)]
    farthest = 0.0
    for name in sorted(ours & theirs):
        of_f16, found = (torch.tensor(file.values(name)) for file in (f16, readable))
        if found.shape != of_f16.shape:
            wrong.append(f"{name} has shape {tuple(found.shape)}, in f16 {tuple(of_f16.shape)}")
            continue
        size, distance = (rms(tensor) for tensor in (of_f16, found - of_f16))
        bits = gguf.bits_of(name)
        allowed = min(ROUNDINGS * step_of(of_f16, bits) / 12**0.5, MAX_ERROR * size) if bits else _OTHER_16_BITS * size
        if allowed:
            farthest = max(farthest, distance / allowed)
        if not distance <= allowed:  # NaN too
            off = distance / size if size else float("inf")
            wrong.append(f"{name} is {off:.2g} of its size away from f16's, {allowed / (size or 1):.2g} allowed")
    numbers = {"tensors": len(ours), "farthest": farthest, "wrong": len(wrong)}
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        says = f"its {wrong[0]}{more}: it was made from other weights or is damaged, export it again"
    else:
        says = f"{len(ours)} tensors are f16's but for rounding, the farthest by {farthest:.2g} of what is allowed"
    return Check(gguf.path.name, "tensors", not wrong, says, numbers)


def step_of(weights: torch.Tensor, bits: int) -> float:
    """About the distance of neighbouring values in a type of so many bits: its blocks' ranges, cut in 2^bits."""
    blocks = weights.reshape(-1, _BLOCK) if weights.numel() % _BLOCK == 0 else weights.reshape(1, -1)
    return rms(2 * blocks.abs().amax(1) / (2**bits - 1))


def rms(tensor: torch.Tensor) -> float:
    """The root of the mean of a tensor's squares: its size by the entry."""
    return tensor.square().mean().sqrt().item()
