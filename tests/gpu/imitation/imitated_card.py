"""A card that is none: ``torch.cuda`` answers as a card would, and what is meant for it stays on the processor.

An imitation, for tests on machines without a card. It shows that the code for cards runs and computes the right thing;
it says nothing of speed, CUDA graphs, the kernels themselves, or the memory that CUDA and vLLM take.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch._dynamo
import torch._inductor.config  # before torch says that it has CUDA, or they look for it themselves
from torch.overrides import TorchFunctionMode

NAME = "imitated card"
TOTAL, FREE = 12 * 2**30, 11 * 2**30
CARDS, OWN = int(os.environ.get("IMITATED_CARDS", "1")), int(os.environ.get("LOCAL_RANK", "0"))
_CPU = torch.device("cpu")
_NOTHING = (
    "reset_peak_memory_stats reset_max_memory_allocated synchronize empty_cache ipc_collect set_device manual_seed "
    "manual_seed_all seed_all set_rng_state set_rng_state_all _lazy_init init set_per_process_memory_fraction "
    "set_stream _sleep"
)
_ZERO = "memory_allocated memory_reserved max_memory_allocated max_memory_reserved utilization"


def put_in(major: int, minor: int) -> None:
    """From here on this process has one card, of compute capability ``major.minor``."""
    torch._dynamo.trace_rules.get_torch_obj_rule_map()  # lists torch's functions once: while they still are torch's
    _keep_vllm_to_one_library()
    for name, answer in _answers(major, minor).items():
        for module in (torch.cuda, torch.cuda.random):
            if module is torch.cuda or hasattr(module, name):
                setattr(module, name, answer)
    torch.version.cuda = torch.version.cuda or "13.0"
    torch._C._cuda_getCurrentRawStream = _says(0)
    accelerator = {
        "is_available": _says(True), "device_count": _says(CARDS), "current_device_index": _says(OWN),
        "current_accelerator": _says(torch.device("cuda")), "current_stream": lambda *_: _Stream(),
        "synchronize": _says(None), "empty_cache": _says(None), "set_device_index": _says(None),
    }  # fmt: skip
    for name, answer in accelerator.items():
        setattr(torch.accelerator, name, answer)
    torch.compile = lambda function=None, *_, **__: function if function is not None else (lambda same: same)
    _stay_on_the_processor()
    _meet_by_gloo()


def _keep_vllm_to_one_library() -> None:
    """Unsloth imports ``vllm._C``, which is for processors with AVX-512; vLLM takes another where there is none."""
    vllm = importlib.util.find_spec("vllm")
    folder = Path(vllm.origin).parent if vllm and vllm.origin else Path()
    if list(folder.glob("_C_AVX2*.so")) and not torch.cpu._is_avx512_bf16_supported():
        sys.modules["vllm._C"] = ModuleType("vllm._C")


def _says(answer: Any) -> Any:
    return lambda *_, **__: answer  # a function of its own each time: torch keeps tables of them


def _answers(major: int, minor: int) -> dict[str, Any]:
    properties = SimpleNamespace(
        name=NAME, major=major, minor=minor, total_memory=TOTAL, multi_processor_count=28, warp_size=32, uuid="",
        max_threads_per_multi_processor=1536, regs_per_multiprocessor=65536, L2_cache_size=3 * 2**20, gcnArchName="",
        shared_memory_per_block=49152, shared_memory_per_block_optin=101376, is_integrated=0,
    )  # fmt: skip
    return {
        **{name: _says(None) for name in _NOTHING.split()},
        **{name: _says(0) for name in _ZERO.split()},
        **{name: _says(True) for name in ("is_available", "is_initialized", "_is_compiled")},
        "is_current_stream_capturing": _says(False), "is_bf16_supported": _says(major >= 8),
        "device_count": _says(CARDS), "current_device": _says(OWN),
        "get_device_properties": _says(properties), "get_device_name": _says(NAME), "memory_stats": _says({}),
        "get_device_capability": _says((major, minor)), "get_arch_list": _says([f"sm_{major}{minor}"]),
        "mem_get_info": _says((FREE, TOTAL)), "memory_summary": _says(""),
        "get_rng_state": _says(torch.zeros(16, dtype=torch.uint8)),
        "get_rng_state_all": _says([torch.zeros(16, dtype=torch.uint8)]),
        "current_stream": lambda *_: _Stream(), "default_stream": lambda *_: _Stream(),
        "stream": _Context, "device": _Context, "Stream": _Stream, "Event": _Event,
    }  # fmt: skip


class _Context:
    idx = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class _Event(_Context):
    def record(self, *_: Any) -> None:
        pass

    synchronize = wait = record

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 1.0


class _Stream(_Context):
    cuda_stream = 0
    device = _CPU

    def synchronize(self, *_: Any) -> None:
        pass

    wait_stream = wait_event = synchronize

    def record_event(self, *_: Any) -> _Event:
        return _Event()


def _here(place: Any) -> Any:
    """The processor where ``place`` means a card, by name, device or index; anything else as it is."""
    if isinstance(place, torch.device):
        return _CPU if place.type == "cuda" else place
    if isinstance(place, str):
        return "cpu" if place.startswith("cuda") else place
    return _CPU if isinstance(place, int) and not isinstance(place, bool) else place


class _OnTheProcessor(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if "device" in kwargs:
            kwargs["device"] = _here(kwargs["device"])
        kwargs.pop("pin_memory", None)
        name = getattr(function, "__name__", "")
        if name in ("cuda", "pin_memory"):
            return args[0]
        if name == "to":
            args = (args[0], *map(_here, args[1:]))
        return function(*args, **kwargs)


def _stay_on_the_processor() -> None:
    _OnTheProcessor().__enter__()
    torch.Tensor.cuda = torch.nn.Module.cuda = torch.Tensor.pin_memory = lambda self, *_, **__: self
    tensor_to, load, set_default = torch.Tensor.to, torch.load, torch.set_default_device

    def to(self: Any, *args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs:
            kwargs["device"] = _here(kwargs["device"])
        return tensor_to(self, *map(_here, args), **kwargs)

    def load_here(*args: Any, **kwargs: Any) -> Any:
        if "map_location" in kwargs:
            kwargs["map_location"] = _here(kwargs["map_location"])
        return load(*args, **kwargs)

    enter_autocast = torch.autocast.__init__

    def autocast_here(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        enter_autocast(self, _here(device_type), *args, **kwargs)

    torch.Tensor.to, torch.load, torch.autocast.__init__ = to, load_here, autocast_here
    torch.set_default_device = lambda device: set_default(_here(device))


def _meet_by_gloo() -> None:
    """Processes that would meet by NCCL meet by gloo, and DDP is given no cards."""
    import torch.distributed as distributed

    init, new_group = distributed.init_process_group, distributed.new_group
    wrapped = torch.nn.parallel.DistributedDataParallel
    enter = wrapped.__init__

    def init_here(backend: Any = None, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("device_id", None)
        init("gloo", *args, **kwargs)

    def new_group_here(ranks: Any = None, timeout: Any = None, backend: Any = None, *args: Any, **kwargs: Any) -> Any:
        return new_group(ranks, timeout, "gloo", *args, **kwargs)

    def enter_here(self: Any, module: Any, *_: Any, **kwargs: Any) -> None:
        kwargs |= {"device_ids": None, "output_device": None}
        enter(self, module, **kwargs)

    def gather_into(output: Any, tensor: Any, group: Any = None, async_op: bool = False) -> None:
        parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size(group))]  # gloo wants other shapes
        distributed.all_gather(parts, tensor.contiguous(), group)
        output.copy_(torch.stack(parts).view_as(output))

    for module in (distributed, distributed.distributed_c10d):
        module.init_process_group, module.new_group = init_here, new_group_here
        module.all_gather_into_tensor = gather_into
    wrapped.__init__ = enter_here
