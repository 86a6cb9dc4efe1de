"""How many bytes of tensors live at once: what a card's allocator would have to hold, counted on the imitated card."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_HALF = (torch.float16, torch.bfloat16)
_PRODUCTS = ("mm", "bmm", "addmm", "baddbmm")


class LiveTensors(TorchDispatchMode):
    """Inside ``with``, ``peak`` is the most bytes at once of tensors made there; those made before do not count.

    What an operation needs while it runs is not seen. Matrix products of 16 bits are computed in 32, untold: a
    processor without 16-bit arithmetic takes minutes for them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}
        tensors = [thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor)]
        self._before = {tensor.untyped_storage()._cdata for tensor in tensors if tensor.device.type == "cpu"}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = _run(operation, args, kwargs or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._sizes or key in self._before:
            return
        self._sizes[key] = storage.nbytes()
        weakref.finalize(storage, self._forget, key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = operation.overloadpacket.__name__
    tensors = [thing for thing in args if isinstance(thing, torch.Tensor)]
    if name not in _PRODUCTS or "out" in kwargs or tensors[-1].dtype not in _HALF:
        return operation(*args, **kwargs)
    wide = [thing.float() if isinstance(thing, torch.Tensor) else thing for thing in args]
    return operation(*wide, **kwargs).to(tensors[-1].dtype)
