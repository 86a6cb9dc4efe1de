"""What Unsloth is told by the environment."""

import pytest

from kit.models.loading import environment
from kit.planning.gpus import card_named
from kit.planning.hardware import Machine
from kit.planning.plan import make_plan
from kit.settings.knobs import Settings


@pytest.mark.parametrize(("dtype", "told"), [("bfloat16", {"UNSLOTH_CPU_BF16": "1"}), ("float32", {})])
def test_a_bfloat16_that_was_asked_for_is_taken_where_a_processor_only_emulates_it(dtype, told):
    """Left to itself Unsloth turns its part off there, and passes over a base unpacked to bfloat16 end in an error."""
    plan = make_plan(Settings(cpu_dtype=dtype, given=frozenset({"cpu_dtype"})), Machine(card=None, free_gib=16), None)
    assert environment(plan) == told
    on_a_card = make_plan(Settings(cpu_dtype=dtype, given=frozenset({"cpu_dtype"})), card_named("t4"), None)
    assert "UNSLOTH_CPU_BF16" not in environment(on_a_card)


@pytest.mark.parametrize("card", ["t4", "rtx5070-12gb"])
def test_no_card_compiles_flashinfer_and_vllm_finds_pinned_memory_under_wsl(card):
    told = environment(make_plan(Settings(), card_named(card), None))
    assert told["UNSLOTH_VLLM_NO_FLASHINFER"] == told["VLLM_WSL2_ENABLE_PIN_MEMORY"] == "1"
