"""A plan for a processor: what fits its memory, in which number type, and by which engine."""

import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.cli.errors import UserError
from kit.planning.hardware import Machine
from kit.planning.plan import make_plan
from kit.settings.knobs import Settings
from tests.conftest import ROOT, run_script
from tests.planning.test_plan import LAPTOP, QWEN


def test_the_plan_that_goes_on_without_vllm_knows_the_questions_too():
    machine = Machine(card=None, memory_gib=12, free_gib=10, has_vllm=True)
    for length in (1024, 2048, 4096):
        plan = make_plan(Settings(max_prompt_length=length), machine, QWEN["0.5B"], longest_prompt=180)
        assert not plan.without_vllm().choice.use_vllm


def test_without_a_card_the_plan_is_for_this_machine(chain):
    said = run_script("train_lora.py", "--plan", "--model", chain / "base").stdout
    for words in ("this is the plan for its processor", "libraries", "activations", "It fits.", "s a step", "on disk"):
        assert words in said


@given(free=st.floats(2, 200), more=st.floats(1, 3), rows=st.sampled_from([None, 4]))
def test_a_processor_with_more_memory_never_gets_a_smaller_plan(free, more, rows):
    wish = {} if rows is None else {"per_device_train_batch_size": rows}
    settings_ = Settings(**wish, given=frozenset(wish))
    plans = []
    for free_gib in (free, free * more):
        try:
            machine = Machine(card=None, memory_gib=free_gib, free_gib=free_gib)
            plans.append(make_plan(settings_, machine, QWEN["0.5B"], longest_prompt=200))
        except UserError:
            plans.append(None)
    small, large = plans
    assert large or not small
    for plan, free_gib in zip(plans, (free, free * more), strict=True):
        assert plan is None or plan.peak_gib <= free_gib
        assert plan is None or plan.settings.completions_per_step == 32
    if small:
        assert large.settings.max_completion_length >= small.settings.max_completion_length
        assert large.choice.gradient_checkpointing <= small.choice.gradient_checkpointing or (
            large.settings.max_completion_length > small.settings.max_completion_length
        )


def test_a_processor_keeps_its_activations_where_there_is_room_and_counts_the_prompts_that_there_are():
    roomy, tight = (
        make_plan(Settings(), Machine(card=None, memory_gib=free, free_gib=free), QWEN["0.5B"], longest_prompt=200)
        for free in (24, 4)
    )
    assert not roomy.choice.gradient_checkpointing
    assert tight.choice.gradient_checkpointing
    assert tight.settings.max_prompt_length == Settings().max_prompt_length
    large = dataclasses.replace(LAPTOP, free_gib=99)
    wish = Settings(per_device_train_batch_size=2, given=frozenset({"per_device_train_batch_size"}))
    short, any_length = (make_plan(wish, large, QWEN["0.5B"], longest) for longest in (200, None))
    kept, kept_at_any_length = (
        next(part.bytes for part in plan.parts if part.name == "activations") for plan in (short, any_length)
    )
    assert kept < kept_at_any_length


@pytest.mark.skipif(sys.platform != "linux", reason="the limits that are read are Linux's")
def test_a_limit_of_the_process_is_seen_and_what_cannot_fit_refused(chain):
    plan = ["train_lora.py", "--plan", "--model", chain / "base", "--batch-size", 64, "--max-completion-length", 4000]
    refused = subprocess.run(
        ["bash", "-c", 'ulimit -v 8000000; exec "$0" "$@"', sys.executable, *map(str, plan)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "does not fit this machine's memory" in refused.stderr
    assert "it fits with" in refused.stderr


def test_a_processor_computes_in_bfloat16_where_that_is_clearly_faster():
    def chosen(settings, gain):
        machine = Machine(card=None, memory_gib=64, free_gib=60, bfloat16_gain=gain)
        return make_plan(settings, machine, QWEN["0.5B"]).settings.cpu_dtype

    assert [chosen(Settings(), gain) for gain in (3.0, 1.2)] == ["bfloat16", "float32"]
    as_it_began = dataclasses.replace(Settings(), cpu_dtype="float32")
    assert chosen(as_it_began, 3.0) == "float32"


def test_bfloat16_that_a_processor_only_emulates_is_vllms_no_more_than_the_trainers():
    def planned(cpu_dtype):
        slow = Machine(card=None, memory_gib=64, free_gib=60, has_vllm=True, bfloat16_gain=1 / 72)
        return make_plan(Settings(cpu_dtype=cpu_dtype), slow, QWEN["0.5B"])

    (weights,) = (part for part in planned("auto").parts if part.name == "vLLM's weights")
    assert weights.how == "float32, twice"
    assert "bfloat16, which is 72 times slower here" in planned("bfloat16").reasons[0]


def test_vllm_on_a_processor_is_given_up_where_its_copy_of_the_weights_does_not_fit():
    machine = Machine(card=None, memory_gib=64, free_gib=60, has_vllm=True)
    roomy = make_plan(Settings(), machine, QWEN["0.5B"])
    assert roomy.choice.use_vllm
    assert {part.name for part in roomy.parts} >= {"vLLM's weights", "vLLM's cache"}
    tight = make_plan(Settings(), dataclasses.replace(machine, free_gib=5.0), QWEN["0.5B"])
    assert not tight.choice.use_vllm
    assert "vLLM does not fit beside the training" in tight.choice.reason
