"""What the imitated card can tell: are its kernels right, and how much lives in memory during a pass of the policy?

Runs where the imitation does (``imitation/run.py``). Unsloth's own kernels run here too, in Triton's interpreter: right
in float32 and float16, and far too slow for a model.
"""

import dataclasses
import os
from types import SimpleNamespace

import pytest

from demo.tokenizer import load_tokenizer
from kit.models import loading as kit_model
from kit.planning import hardware
from kit.planning.card_memory import memory_parts
from kit.planning.model_shape import OWN_CONFIG, model_shape
from kit.planning.plan import make_plan
from kit.settings.knobs import Settings

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


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """The kit's policy, 4-bit and with LoRA, of Qwen2.5-0.5B's widths and one layer; and its plan."""
    import unsloth  # noqa: F401 - before transformers
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder = str(tmp_path_factory.mktemp("wide"))
    Qwen2ForCausalLM(Qwen2Config(**OWN_CONFIG | {"num_hidden_layers": 1})).bfloat16().save_pretrained(folder)
    load_tokenizer().save_pretrained(folder)
    settings = Settings(model=folder, vllm="off", given=frozenset({"model", "vllm"}))
    plan = make_plan(settings, hardware.detect(), model_shape(folder))
    with pytest.MonkeyPatch.context() as patch:
        told = kit_model.lora_arguments(plan)
        told["use_gradient_checkpointing"] = True  # with "unsloth", what a layer begins with leaves the card
        patch.setattr(kit_model, "lora_arguments", lambda _: told)
        return *kit_model.load_for_training(plan)[:2], plan


@pytest.mark.parametrize(("name", "learns"), [("scoring", False), ("the update", True)])
def test_the_plan_counts_the_activations_that_live_at_once(policy, name, learns, monkeypatch):
    import torch
    from live_tensors import LiveTensors

    monkeypatch.setenv("UNSLOTH_RETURN_HIDDEN_STATES", "1")  # as the trainer asks: logits come from these, in pieces
    model, _, plan = policy
    layout = dataclasses.replace(plan.layout, vllm=True, rows=4, completion=512 - plan.settings.max_prompt_length)
    parts = memory_parts(model_shape(plan.settings.model), plan.settings, layout)
    (planned,) = [part.bytes for part in parts if part.name == f"activations of {name}"]
    tokens = torch.randint(1000, (4, 512))
    mixed = torch.autocast("cuda", getattr(torch, plan.choice.dtype))
    with torch.set_grad_enabled(learns), mixed, LiveTensors() as seen:
        hidden = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
        if learns:
            hidden.float().mean().backward()
    assert hidden.shape == (4, 512, 896)
    print(f"{name}: planned {planned / 2**20:.0f} MiB, seen {seen.peak / 2**20:.0f} MiB")
    assert 0.75 < planned / seen.peak < 1.5
