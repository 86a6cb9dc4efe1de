"""Plans for cards that are not here: sensible for their owners, never larger than the card, never smaller with more."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.checkpointing.resuming import as_recorded
from kit.checkpointing.same_run import check_same_run
from kit.cli.errors import UserError
from kit.planning.card_memory import GIB, Layout, memory_parts, peak_bytes, vllm_bytes
from kit.planning.gpus import NAMES, card_named
from kit.planning.hardware import Machine, driver_fault, requirements_for
from kit.planning.model_shape import ModelShape, model_shape, shape_of
from kit.planning.plan import Plan, make_plan
from kit.planning.plan_report import print_plan
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder
from kit.training.trainer import trainer_arguments
from tests.conftest import run_script

OWN = "unsloth/Qwen2.5-0.5B-Instruct"
LAPTOP = Machine(card=None, memory_gib=15.6, free_gib=12)


def qwen(hidden, intermediate, layers, heads, kv_heads, tied, vocabulary=151936) -> ModelShape:
    return ModelShape(hidden, intermediate, layers, hidden, hidden // heads * kv_heads, vocabulary, tied)


QWEN = {
    "0.5B": qwen(896, 4864, 24, 14, 2, True),
    "1.5B": qwen(1536, 8960, 28, 12, 2, True),
    "3B": qwen(2048, 11008, 36, 16, 2, True),
    "7B": qwen(3584, 18944, 28, 28, 4, False, 152064),
}

REFUSED = {
    "gtx1080-8gb": "compute capability 6.1",
    "rx7900xtx": "pinned for NVIDIA",
    "apple-m3-max": "pinned for NVIDIA",
}


@pytest.mark.parametrize("name", NAMES)
def test_each_card_gets_a_plan_or_a_way_out(name):
    """The kit's own model at its defaults fits every card that is not refused."""
    machine = card_named(name)
    if name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name]) as refusal:
            requirements_for(machine)
        assert "make demo" in str(refusal.value)
        return
    plan = make_plan(Settings(), machine, QWEN["0.5B"])
    outcome = ("float16", "requirements-t4.txt") if machine.capability < (8, 0) else ("bfloat16", "requirements.txt")
    assert (plan.choice.dtype, requirements_for(machine)) == outcome
    assert plan.choice.use_vllm
    assert plan.settings.completions_per_step == 32  # the recipe is the same on every card
    assert plan.settings.max_completion_length == 512
    assert plan.peak_gib < machine.free_gib


def test_memory_is_given_back_during_the_update_only_where_it_must_be():
    assert make_plan(Settings(), card_named("rtx3060-12gb"), QWEN["7B"]).layout.standby
    assert not make_plan(Settings(), card_named("t4"), QWEN["0.5B"]).layout.standby


def test_logits_are_some_rows_at_a_time_however_long_the_completions():
    layout = make_plan(Settings(), card_named("t4"), QWEN["0.5B"]).layout
    short, long = (
        {part.name: part.bytes for part in memory_parts(QWEN["0.5B"], Settings(), replaced)}
        for replaced in (layout, dataclasses.replace(layout, completion=4 * layout.completion))
    )
    assert short["logits of the update"] == long["logits of the update"] == 512 * 151_936 * 4
    assert long["activations of the update"] > 2 * short["activations of the update"]


def test_without_vllm_there_is_a_plan_too():
    machine = dataclasses.replace(card_named("rtx3060-12gb"), has_vllm=False)
    plan = make_plan(Settings(), machine, QWEN["0.5B"])
    assert not plan.choice.use_vllm
    assert "vLLM is not installed" in plan.reasons[1]
    assert not {part.name for part in plan.parts} & {"vLLM's weights", "vLLM's CUDA graphs"}


def size_of(plan: Plan) -> tuple[float, ...]:
    layout = plan.layout
    return (layout.vllm, layout.completion, layout.rows, layout.sequences if layout.vllm else 0)


cards = st.builds(
    lambda memory, capability: Machine("some card", capability, memory + 0.5, memory, driver=580, has_vllm=True),
    st.floats(1.0, 40.0),
    st.sampled_from([(7, 5), (8, 0), (8, 9), (12, 0)]),
)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "num_generations": st.integers(2, 16),
        "per_device_train_batch_size": st.sampled_from([1, 2, 4, 6, 8, 16]),
        "max_completion_length": st.sampled_from([64, 256, 1024, 2048]),
        "lora_rank": st.sampled_from([8, 32, 64]),
        "beta": st.sampled_from([0.0, 0.04]),
        "vllm": st.sampled_from(["auto", "off", "require"]),
        "optim": st.sampled_from(["adamw_8bit", "adamw_torch"]),
        "load_in_4bit": st.booleans(),
    },
)


def planned(wish, machine, shape) -> Plan | None:
    try:
        return make_plan(Settings(**wish, given=frozenset(wish)), machine, shape)
    except UserError:
        return None


@settings(max_examples=400)
@given(cards, st.floats(1.0, 2.0), st.sampled_from(list(QWEN.values())), wishes)
def test_more_memory_never_gets_a_smaller_plan_and_none_exceeds_its_card(machine, factor, shape, wish):
    larger = dataclasses.replace(machine, free_gib=machine.free_gib * factor, memory_gib=machine.memory_gib * factor)
    small, large = planned(wish, machine, shape), planned(wish, larger, shape)
    if small:
        assert large, f"fits {machine.free_gib} GiB but not {larger.free_gib}"
        assert all(more >= less for more, less in zip(size_of(large), size_of(small), strict=True))
    for plan, card in ((small, machine), (large, larger)):
        if plan:
            assert plan.peak_gib <= card.free_gib
            assert 0 < plan.memory_share <= 1
            assert all(getattr(plan.settings, name) == value for name, value in wish.items())
            assert plan.settings.completions_per_step % plan.settings.num_generations == 0


@pytest.mark.parametrize(
    ("card", "model", "wish", "words"),
    [
        ("rtx4060-8gb", "7B", {}, "name a smaller --model"),
        ("rtx3060-12gb", "7B", {"load_in_4bit": False}, "--load-in-4bit"),
        ("rtx3050-laptop-4gb", "0.5B", {"max_completion_length": 32768}, "--max-completion-length 512"),
        ("rtx3060-12gb", "7B", {"vllm": "require", "max_completion_length": 8192}, "--max-completion-length 512"),
        ("t4", "0.5B", {"gpu_memory_utilization": 0.05, "vllm": "require"}, "fits without --gpu-memory-utilization"),
        ("rtx4080", "7B", {"per_device_train_batch_size": 32, "gradient_accumulation_steps": 1,
                           "max_prompt_length": 384, "gpu_memory_utilization": 0.9, "vllm": "require"}, "--vllm off"),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_the_setting_that_would_fit(card, model, wish, words):
    with pytest.raises(UserError, match="GiB are needed") as refusal:
        make_plan(Settings(**wish, given=frozenset(wish)), card_named(card), QWEN[model])
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("wish", "product"),
    [({}, 32), ({"num_generations": 6}, 30), ({"per_device_train_batch_size": 6}, 24),
     ({"gradient_accumulation_steps": 2}, 32), ({"num_generations": 40}, 40),
     ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}, 8)],
)  # fmt: skip
def test_what_is_left_open_makes_the_products_fit_on_a_cpu_too(wish, product):
    for machine in (LAPTOP, card_named("t4")):
        plan = make_plan(Settings(**wish, given=frozenset(wish)), machine, QWEN["0.5B"])
        assert plan.settings.completions_per_step == product


@pytest.mark.parametrize(
    ("given_now", "split"),
    [({}, (8, 2)), ({"per_device_train_batch_size": 2}, (2, 8)), ({"gradient_accumulation_steps": 4}, (4, 4))],
)
def test_a_run_goes_on_on_another_card_as_it_began(tmp_path, given_now, split):
    """What decides what is learned is the run's; how a step is split up may be another."""
    began = Settings(output_dir=str(tmp_path / "run"), max_completion_length=384, num_generations=4)
    began.optim, began.per_device_train_batch_size, began.gradient_accumulation_steps = "adamw_torch", 4, 4
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.write({"settings": began.as_config()})
    now = Settings(output_dir=began.output_dir, num_generations=4, **given_now)
    now.given = frozenset({"output_dir", "num_generations", *given_now})
    check_same_run(run, now, None)
    plan = make_plan(as_recorded(now), card_named("t4"), QWEN["0.5B"])
    assert (plan.settings.max_completion_length, plan.settings.optim) == (384, "adamw_torch")
    assert (plan.settings.per_device_train_batch_size, plan.settings.gradient_accumulation_steps) == split
    check_same_run(run, plan.settings, None)


def test_a_run_does_not_go_on_with_steps_of_another_size(tmp_path):
    run = RunFolder(tmp_path)
    run.write({"settings": Settings().as_config()})
    with pytest.raises(UserError, match="completions a step 32 → per_device_train_batch_size 5"):
        check_same_run(
            run, Settings(per_device_train_batch_size=5, given=frozenset({"per_device_train_batch_size"})), None
        )


def test_the_plan_is_the_one_of_the_run_that_would_be_continued(tmp_path, capsys):
    run = RunFolder(tmp_path)
    run.write({"settings": Settings(max_completion_length=384).as_config()})
    again = {"model": OWN, "output_dir": str(tmp_path), "gpu": "t4"}
    print_plan(Settings(**again, given=frozenset(again)))
    assert "completions x 896 tokens" in capsys.readouterr().out
    print_plan(Settings(**again, lora_rank=8, given=frozenset({*again, "lora_rank"})))
    said = capsys.readouterr().out
    assert "training would be refused" in said
    assert "lora_rank 32 → 8" in said


# ---- first principles


@pytest.mark.parametrize("kind", ["Qwen2", "Llama", "Qwen3"])
def test_parameters_and_cache_are_those_of_the_real_model(kind):
    import torch
    import transformers

    sizes = {
        "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 64,
        "num_key_value_heads": 2, "vocab_size": 1000, "tie_word_embeddings": kind != "Llama",
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    shape = shape_of(config.to_dict(), kind)
    matrices = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n]
    assert shape.linear_parameters == sum(m.weight.numel() for m in matrices)
    assert shape.lora_parameters(8) == sum(8 * (m.in_features + m.out_features) for m in matrices)
    everything = sum(parameter.numel() for parameter in model.parameters())
    assert 0 <= everything - shape.linear_parameters - shape.other_parameters < 0.01 * everything  # norms, biases
    cache = model(torch.ones(1, 5, dtype=torch.long), use_cache=True).past_key_values
    kept = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert kept == 5 * shape.kv_elements_per_token


def test_gemmas_published_config_leaves_out_that_its_head_is_its_embedding():
    config = {"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 4,
              "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144}  # fmt: skip
    assert shape_of(config | {"model_type": "gemma3_text"}, "gemma").tied
    assert not shape_of(config | {"model_type": "llama"}, "llama").tied


def test_bytes_by_part_are_those_of_the_docstring():
    plan = make_plan(Settings(), card_named("t4"), QWEN["0.5B"])
    by_name = {part.name: part.bytes for part in plan.parts}
    assert by_name["base weights"] == pytest.approx(357_826_560 * 4.5 / 8 + 151936 * 896 * 2)
    assert by_name["LoRA, gradients, optimizer"] == 17_596_416 * (4 + 4 + 2)
    assert by_name["KV cache"] == 32 * (512 + 512) * 24 * 2 * 128 * 2
    with_kl = memory_parts(QWEN["0.5B"], Settings(beta=0.1, optim="adamw_torch"), plan.layout)
    assert {p.name: p.bytes for p in with_kl}["LoRA, gradients, optimizer"] == 17_596_416 * (4 + 4 + 8 + 4)


@pytest.mark.parametrize(
    ("rows", "accumulation", "completion", "vllm_gib", "seen_gib"),
    [(8, 4, 512, 2.72, 6.16), (32, 2, 256, 11.87, 15.27)],  # an H100, by NVML; vLLM's share, context left out
)
def test_a_plan_is_what_a_card_took_or_somewhat_more(rows, accumulation, completion, vllm_gib, seen_gib):
    settings = Settings(per_device_train_batch_size=rows, gradient_accumulation_steps=accumulation)
    layout, shape = Layout(True, False, rows, rows * accumulation, completion), QWEN["0.5B"]
    reserve = vllm_gib * GIB - vllm_bytes(memory_parts(shape, settings, layout))
    parts = memory_parts(
        shape, settings, dataclasses.replace(layout, reserve=reserve), scoring_rows=rows * accumulation
    )
    assert seen_gib <= peak_bytes(parts) / GIB <= 1.1 * seen_gib


@pytest.mark.parametrize("name", ["rtx3050-laptop-4gb", "rtx3070-8gb"])
def test_where_unsloth_would_score_more_at_once_than_fits_it_is_told_in_how_many_pieces(name, tmp_path):
    machine = card_named(name)
    plan = make_plan(Settings(), machine, QWEN["0.5B"])

    def peak(rows):
        return peak_bytes(memory_parts(QWEN["0.5B"], plan.settings, plan.layout, scoring_rows=rows)) / GIB

    pieces, step, usable = plan.layout.scoring_pieces, plan.settings.completions_per_card, 0.95 * machine.free_gib
    told = trainer_arguments(plan.settings, plan.choice, [1.0], RunFolder(tmp_path), plan.layout)
    assert told.get("unsloth_grpo_mini_batch", 0) == pieces
    assert plan.peak_gib <= usable
    if name == "rtx3070-8gb":
        assert pieces == 0
    else:
        assert plan.peak_gib == peak(step // pieces)
        assert peak(step // (pieces // 2)) > usable  # in half as many


def test_four_bit_weights_take_what_the_plan_says():
    import bitsandbytes as bnb
    import torch

    packed, state = bnb.functional.quantize_4bit(torch.randn(1024, 1024), quant_type="nf4", blocksize=64)
    assert (packed.nbytes + state.absmax.nbytes) * 8 / 1024**2 == 4.5


# ---- what a user sees


def test_the_own_model_is_known_without_a_network():
    assert model_shape(OWN) == QWEN["0.5B"]


def test_a_plan_is_printed_without_a_card(chain):
    said = run_script("train_lora.py", "--plan", "--gpu", "rtx4070-laptop-8gb", "--model", OWN).stdout
    assert "RTX 4070 Laptop" in said
    for words in (
        "base weights", "KV cache", "logits", "CUDA context", "It fits.", "min for 250 steps", "compiles its kernels",
        "on disk",
    ):  # fmt: skip
        assert words in said
    own_base = run_script("train_lora.py", "--plan", "--gpu", "t4", "--model", chain / "base" / "config.json").stdout
    assert "It fits." in own_base


def test_the_cards_that_there_are_packages_for_are_listed(capsys):
    print_plan(Settings(gpu="list"))
    names = capsys.readouterr().out.split()
    assert len(names) == 25
    assert {"t4", "rtx3060-12gb"} <= set(names)
    assert not {"gtx1080-8gb", "apple-m3-max"} & set(names)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["--plan", "--gpu", "rtx409"], "did you mean rtx4090"),
        (["--plan", "--gpu", "rx7900xtx"], "pinned for NVIDIA"),
        (["--gpu", "t4"], "add --plan"),
        (["--plan", "--gpu", "t4", "--model", "none"], "has no config.json"),
        (["--plan", "--gpu", "t4", "--max-completion-length", "900000"], "it fits with --max-completion-length"),
    ],
)
def test_a_plan_that_cannot_be_made_is_refused(call, words):
    refused = run_script("train_lora.py", *call, check=False)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert refused.stderr.count("\n") == refused.stderr.count("error: ")


def test_a_driver_too_old_for_the_packages_is_named_with_both_ways_out():
    assert driver_fault("Tesla T4", 580, "13.0") == ""
    assert driver_fault("Tesla T4", 550, "12.8") == ""
    fault = driver_fault("Tesla T4", 550, "13.0")
    assert "driver 550" in fault
    assert "requirements-cuda12.txt" in fault
    assert "update the driver" in driver_fault("Tesla T4", 470, "12.8")
