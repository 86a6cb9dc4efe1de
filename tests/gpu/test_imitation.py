"""Does the imitated card compute what a card's kernels compute? Runs where the imitation does: ``imitation/run.py``.

Unsloth's own kernels run here too, in Triton's interpreter: right in float32 and float16, and far too slow for a model.
"""

import os
from types import SimpleNamespace

import pytest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not os.environ.get("IMITATED_CAPABILITY"), reason="not run with an imitated card"),
]


def cases(torch, dtype):
    """Arguments for each kernel."""
    from bitsandbytes.functional import quantize_4bit

    def normal(*shape):
        return torch.randn(*shape).to(dtype)

    angles = torch.arange(5.0)[:, None] * torch.arange(16.0).repeat(2) / 7
    packed = quantize_4bit(normal(64, 128), quant_type="nf4", compress_statistics=True)
    return {
        "fast_rms_layernorm": (SimpleNamespace(variance_epsilon=1e-6, weight=normal(64)), normal(2, 5, 64)),
        "fast_rope_embedding": (
            normal(2, 2, 5, 32),
            normal(2, 1, 5, 32),
            angles.cos().to(dtype),
            angles.sin().to(dtype),
        ),
        "swiglu_fg_kernel": (normal(2, 5, 64), normal(2, 5, 64)),
        "swiglu_DWf_DW_dfg_kernel": (normal(10, 64), normal(10, 64), normal(10, 64)),
        "fast_dequantize": packed,
        "fast_gemv": (normal(1, 1, 128), *packed),
    }


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_each_imitated_kernel_computes_what_unsloths_does(name):
    import torch
    import unsloth  # noqa: F401 - replaces its kernels
    from imitated_kernels import KERNELS, REPLACED

    dtype = getattr(torch, name)
    torch.manual_seed(0)
    given = cases(torch, dtype)
    for kernel in KERNELS:
        own, imitated = (
            call(*(x.clone() if type(x) is torch.Tensor else x for x in given[kernel.__name__]))
            for call in (REPLACED[kernel.__name__], kernel)
        )
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
        torch.testing.assert_close(own, imitated, **tolerance, msg=lambda said, of=kernel.__name__: f"{of}: {said}")
