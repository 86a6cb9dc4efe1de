"""A processor with AVX2 and no AVX-512, as torch and vLLM ask for it: for processes with this on their PYTHONPATH."""

import torch

for asked in ("_is_avx512_supported", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
    setattr(torch.cpu, asked, lambda: False)
