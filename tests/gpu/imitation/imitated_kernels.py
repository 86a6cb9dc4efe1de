"""Unsloth's kernels for cards in plain torch, for the imitated card: normalisation, rotation, SwiGLU, 4-bit weights.

Each computes what the kernel of the same name in ``unsloth/kernels`` computes, in the same number types.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

REPLACED: dict[str, Callable[..., Any]] = {}  # Unsloth's own, by name


def replace() -> None:
    """Put these in the place of Unsloth's, in every module of Unsloth that has imported one."""
    modules = [module for name, module in sys.modules.items() if name.startswith("unsloth")]
    for kernel in KERNELS:
        for module in modules:
            own = getattr(module, kernel.__name__, None)
            if own is None or isinstance(own, ModuleType):  # modules are named like kernels, too
                continue
            if own.__module__ == module.__name__:
                REPLACED[kernel.__name__] = own
            setattr(module, kernel.__name__, kernel)


def _as_one(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Show a tracker of tensors what a kernel would: its result, and nothing that comes and goes inside."""

    @wraps(kernel)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            result = kernel(*args, **kwargs)
        for tensor in result if isinstance(result, tuple) else (result,):
            tensor.detach()
        return result

    return run


def fast_rms_layernorm(norm: Any, inputs: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    epsilon = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    wide = inputs.float()
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return (scaled * norm.weight.float()).to(inputs.dtype)


def fast_rope_embedding(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: Any = None
) -> tuple[torch.Tensor, ...]:
    """``query`` and ``key`` are (batch, heads, length, size of a head)."""
    batch, _, length, _ = query.shape
    cos, sin = cos.squeeze(), sin.squeeze()
    if positions is None:
        cos, sin = cos[None, None, :length], sin[None, None, :length]
    else:
        cos, sin = (table[positions].view(batch, length, -1)[:, None] for table in (cos, sin))
    return tuple((x * cos + _rotated(x) * sin).to(x.dtype) for x in (query, key))


def _rotated(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), -1)


def swiglu_fg_kernel(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    wide = gate.float()
    return (wide * torch.sigmoid(wide)).to(up.dtype) * up


def swiglu_DWf_DW_dfg_kernel(gradient: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The backward pass, written over its arguments: the output again, the gradients of ``up`` and ``gate``."""
    wide = gate.float()
    sigmoid = torch.sigmoid(wide)
    active = (sigmoid * wide).to(gradient.dtype)
    output, of_up, of_active = active * up, gradient * active, gradient * up
    of_gate = (of_active.float() * sigmoid * (1 + wide * (1 - sigmoid))).to(gradient.dtype)
    gradient.copy_(output)
    gate.copy_(of_up)
    up.copy_(of_gate)
    return gradient, gate, up


def fast_dequantize(weight: Any, quant_state: Any = None, out: Any = None, *_: Any, **__: Any) -> torch.Tensor:
    import bitsandbytes.functional

    if quant_state is None:
        return weight
    found = bitsandbytes.functional.dequantize_4bit(weight, quant_state)
    return found if out is None else out.copy_(found)


def fast_gemv(inputs: torch.Tensor, weight: Any, quant_state: Any, out: Any = None) -> torch.Tensor:
    found = inputs @ fast_dequantize(weight, quant_state).t()
    return found if out is None else out.copy_(found)


_ALL = (
    fast_rms_layernorm, fast_rope_embedding, swiglu_fg_kernel, swiglu_DWf_DW_dfg_kernel, fast_dequantize, fast_gemv,
)  # fmt: skip
KERNELS = tuple(map(_as_one, _ALL))
