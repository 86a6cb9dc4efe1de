"""Is each tensor of a GGUF that of the f16 GGUF, which answers as merged does, but for rounding?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.export.checks.check import Check
from kit.llama_cpp.gguf import GgufFile
from kit.llama_cpp.imatrix import matrix_used_in

if TYPE_CHECKING:
    import torch

# Of what rounding to the nearest of evenly spaced values leaves in a row, times. Types of three bits and more leave up
# to 1.2 of a real model (benchmarks/rounding.py), and up to 3 of weights that are all s or -s. By an importance matrix,
# which lets weights go that meet small inputs, they leave up to 2.0 of a real model.
ROUNDINGS, BY_IMPORTANCE = 4.0, 8.0
_FEW = 3  # bits, below which a row of zeros is as near as many a rounded one: there the whole tensor says it
# A row of zeros is once as far from f16's as that is large, another row of its size 1.4 times. The coarsest types
# (tq1_0, tq2_0) leave 0.83 of a real model's matrix.
MAX_ERROR = 0.97
OTHER_16_BITS = 0.005  # f16's and bf16's roundings together
LAST_OF_16_BITS = 2.0**-24  # the smallest float16; a block's scale is one, rounded by half of that
_LARGEST = 2**12  # what a scale is multiplied with at most where it is a scale of scales, in K-quants and I-quants
_OF_SCALES = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq")
_BLOCK = 32  # weights with a scale of their own


@dataclass(frozen=True)
class Rows:
    """Of some rows of a tensor by the entry, each of shape (rows,): the size in f16, how far a file's are from that,
    and a step of its type, which is 0 where it is not quantized."""

    size: torch.Tensor
    distance: torch.Tensor
    step: torch.Tensor


def is_f16_rounded(gguf: GgufFile, readable: GgufFile, f16: GgufFile) -> Check:
    """A file holds the tensors of f16, and no row of one is farther from f16's than its type may leave it; of types of
    one or two bits, no tensor. Only part of a tensor is held at a time.

    Args:
        gguf: the file.
        readable: the file itself, or a copy of it in a type that can be read here.
        f16: what it was made from.
    """
    ours, theirs = set(gguf.names), set(f16.names)
    wrong = [f"{name} is missing" for name in sorted(theirs - ours)]
    wrong += [f"{name} is not in f16" for name in sorted(ours - theirs)]
    farthest, roundings = 0.0, BY_IMPORTANCE if matrix_used_in(gguf) else ROUNDINGS
    for name in sorted(ours & theirs):
        if gguf.shape_of(name) != f16.shape_of(name):
            wrong.append(f"{name} has shape {gguf.shape_of(name)}, in f16 {f16.shape_of(name)}")
            continue
        far, of_size = _of_allowed(gguf, readable, f16, name, roundings)
        farthest = max(farthest, far)
        if not far <= 1:  # NaN too
            times = f", {far:.2g} times what rounding may leave" if far < float("inf") else ""
            wrong.append(f"{name} is {of_size:.2g} of its size away from f16's{times}")
    numbers = {"tensors": len(ours), "farthest": farthest, "wrong": len(wrong)}
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        says = f"its {wrong[0]}{more}: it is of other weights or damaged, or another llama.cpp's, export it again"
    else:
        says = f"{len(ours)} tensors are f16's but for rounding, the farthest by {farthest:.2g} of what is allowed"
    return Check(gguf.path.name, "tensors", not wrong, says, numbers)


def _of_allowed(gguf: GgufFile, readable: GgufFile, f16: GgufFile, name: str, roundings: float) -> tuple[float, float]:
    """Of a tensor: how far its farthest row is, or all of it, beside what is allowed and beside its size."""
    import torch

    bits = gguf.bits_of(name)
    parts = list(rows_of(readable, f16, name, bits))
    size, distance, step = (
        torch.cat([getattr(part, field) for part in parts]).double() for field in ("size", "distance", "step")
    )
    far, large = rms(distance, 0).item(), rms(size, 0).item()
    of_size = far / large if large else far and float("inf")
    if bits is None:
        if gguf.type_of(name) == f16.type_of(name):  # norms and biases are f32 in all files
            return float("inf") if distance.any() else 0.0, of_size
        return (distance / (OTHER_16_BITS * size + LAST_OF_16_BITS)).max().item(), of_size
    by_scale = LAST_OF_16_BITS / 2 * (_LARGEST if gguf.type_of(name).startswith(_OF_SCALES) else 2 ** (bits - 1))
    if bits < _FEW:
        return far / (MAX_ERROR * large + by_scale), of_size
    allowed = torch.minimum(roundings * step / 12**0.5, MAX_ERROR * size) + by_scale
    return (distance / allowed).max().item(), of_size  # NaN where one is


def rows_of(file: GgufFile, f16: GgufFile, name: str, bits: int | None) -> Iterator[Rows]:
    """The rows of a tensor, some at a time; ``bits`` are those of the type that the file's were rounded to."""
    import torch

    for parts in zip(f16.parts(name), file.parts(name), strict=True):
        of_f16, found = (torch.tensor(part.reshape(-1, part.shape[-1] if part.ndim > 1 else 1)) for part in parts)
        step = steps_of(of_f16, bits) if bits else torch.zeros(len(of_f16))
        yield Rows(rms(of_f16, 1), rms(found - of_f16, 1), step)


def steps_of(weights: torch.Tensor, bits: int) -> torch.Tensor:
    """About the distance of neighbouring values in each row, in a type of so many bits: of its blocks' ranges, each cut
    in 2^bits, the size by the block; shape (rows,)."""
    blocks = weights.reshape(len(weights), -1, _BLOCK if weights.shape[1] % _BLOCK == 0 else weights.shape[1])
    return rms(2 * blocks.abs().amax(2) / (2**bits - 1), 1)


def rms(tensor: torch.Tensor, along: int | tuple[int, ...]) -> torch.Tensor:
    """The root of the mean of the squares along a dimension: a size by the entry."""
    return tensor.square().mean(along).sqrt()
