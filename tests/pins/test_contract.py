"""Is everything that the kit tells Unsloth, TRL and vLLM declared in the pinned versions' own source?

The kit's own code makes the calls; in the place of the packages, which need a card, stand signatures from their source.
"""

import dataclasses
import functools
import re
import sys
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import pytest
from packaging.version import Version

from kit.generation import vllm_engine
from kit.generation.artefacts import Artefact, Kind
from kit.generation.engine import Sampling
from kit.generation.open import open_engine
from kit.generation.runtime import Room, Runtime
from kit.generation.vllm_engine import engine_of_policy
from kit.models import loading as model
from kit.planning import card_memory as memory
from kit.planning.gpus import card_named
from kit.planning.model_shape import model_shape
from kit.planning.plan import make_plan
from kit.settings.knobs import Settings
from kit.settings.losses import LOSSES, loss_fields
from kit.storage.run_folder import RunFolder
from kit.training.sampling_weights import CAPS
from kit.training.trainer import trainer_arguments
from tests.pins.contract import Declared, imports_from, signature
from tests.pins.published import pins, source

pytestmark = pytest.mark.pins

SETS = ["requirements.txt", "requirements-t4.txt", "requirements-cuda12.txt"]
PYTHON = "3.12"
NEWER_THAN_OURS = "_HAS_STATEFUL_TRAINER_ENGINE"  # TRL: for vLLM 0.28 and newer
CARDS = {"requirements.txt": "rtx3060-12gb", "requirements-t4.txt": "t4", "requirements-cuda12.txt": "rtx3090"}


@pytest.fixture(params=SETS)
def lock(request):
    return request.param


@pytest.fixture
def plan(lock):
    return make_plan(Settings(), card_named(CARDS[lock]), model_shape(Settings().model))


@pytest.fixture
def unsloth(lock, monkeypatch):
    """Unsloth's GPU loader, as its source declares it."""
    from transformers import GenerationConfig, Qwen2Config

    loader = source(lock, PYTHON, "unsloth", "unsloth/models/loader.py")
    llama = source(lock, PYTHON, "unsloth", "unsloth/models/llama.py")
    engine = signature(source(lock, PYTHON, "unsloth-zoo", "unsloth_zoo/vllm_utils.py"), "load_vllm")
    policy = SimpleNamespace(
        device=SimpleNamespace(type="cuda"),
        vllm_engine="engine",
        generation_config=GenerationConfig(),
        config=Qwen2Config(max_position_embeddings=32768),
    )
    tokenizer = SimpleNamespace(model_max_length=576, chat_template={"default": "usual", "tool_use": "other"})
    fast = SimpleNamespace(
        from_pretrained=Declared(
            signature(loader, "FastLanguageModel.from_pretrained"),
            result=(policy, tokenizer),
            hands_on=[signature(llama, "FastLlamaModel.from_pretrained"), engine],
        ),
        get_peft_model=Declared(signature(llama, "FastLlamaModel.get_peft_model"), result=policy),
        for_inference=Declared(signature(llama, "FastLlamaModel.for_inference")),
    )
    monkeypatch.setattr(model, "_import_unsloth", lambda: SimpleNamespace(FastLanguageModel=fast))
    return fast


def test_training_is_loaded_as_unsloth_declares(unsloth, plan):
    _, tokenizer, plan = model.load_for_training(plan)
    (told,) = unsloth.from_pretrained.calls
    assert plan.choice.use_vllm
    assert told["fast_inference"]
    assert told["max_num_seqs"] == plan.layout.sequences
    assert tokenizer.model_max_length == 32768  # the model's, not the training's
    assert tokenizer.chat_template == "usual"
    (adapter,) = unsloth.get_peft_model.calls
    assert adapter["r"] == plan.settings.lora_rank


def test_the_environment_that_the_plan_sets_is_read(lock, plan):
    on_standby = dataclasses.replace(plan, layout=dataclasses.replace(plan.layout, standby=True))
    readers = {"unsloth-zoo": ("unsloth_zoo/vllm_utils.py",), "vllm": ("vllm/envs.py",)}
    read = "".join(source(lock, PYTHON, package, file) for package, files in readers.items() for file in files)
    names = set(model.environment(on_standby)) - _since_0_26(lock)
    assert {name for name in names if f'"{name}"' in read} == names


def _since_0_26(lock):
    """Older ones do without."""
    vllm = dict(line.split("==") for line in pins(lock, PYTHON))["vllm"]
    return set() if Version(vllm) >= Version("0.26") else {"VLLM_WSL2_ENABLE_PIN_MEMORY"}


def test_unsloth_scores_in_as_many_pieces_as_it_is_told(lock):
    config, scoring, update = (
        source(lock, PYTHON, package, file)
        for package, file in (
            ("unsloth", "unsloth/models/rl.py"), ("unsloth", "unsloth/models/rl_replacements.py"),
            ("unsloth-zoo", "unsloth_zoo/rl_replacements.py"),
        )
    )  # fmt: skip
    assert "if self.generation_batch_size >= unsloth_grpo_mini_batch" in config
    assert "B = self.args.unsloth_grpo_mini_batch" in scoring
    assert "batch_size = math.ceil(total_samples / B)" in scoring
    assert "if trainer.args.unsloth_grpo_mini_batch > total_rows" in update


def test_vllm_counts_no_cuda_graphs_where_the_plan_counts_them_outside_its_share():
    """What the plan's cards of 8.0 and newer run is the newer of vLLM's runners, with requirements.txt alone."""
    runner, config = (
        source("requirements.txt", PYTHON, "vllm", f"vllm/{file}")
        for file in ("v1/worker/gpu/model_runner.py", "config/vllm.py")
    )
    assert re.search(r"def profile_cudagraph_memory\(self\) -> int:\n(?:\s+#.*\n)*\s+return 0\n", runner)
    assert "or not model_config.is_moe" in config
    within = {
        name: make_plan(Settings(), card_named(name), model_shape(Settings().model)) for name in ("t4", "rtx4090")
    }
    assert [plan.layout.graphs_in_share for plan in within.values()] == [True, False]


def test_logits_are_made_in_the_pieces_that_the_plan_counts(lock):
    read = source(lock, PYTHON, "unsloth-zoo", "unsloth_zoo/fused_losses/fused_linear.py")
    assert (memory._LEAST_LOGITS, memory._LOGIT_TILE_BYTES) == (512 * 151936, 256 * 1024**2)
    assert "_MIN_LOGITS = 512 * 151936" in read
    assert '"UNSLOTH_FUSED_LINEAR_BWD_TILE_MB", 8 if _HIP_TILES else 256' in read
    assert f'"UNSLOTH_FUSED_LINEAR_MAX_ROWS", {memory._MOST_ROWS}' in read


def test_loading_for_inference_is_as_unsloth_declares(unsloth, tmp_path):
    model.load_for_inference(str(tmp_path), "bfloat16", "base")
    assert unsloth.from_pretrained.calls[0]["load_in_4bit"] is False
    assert unsloth.for_inference.calls == [{}]


def test_every_field_of_the_trainer_is_declared(lock, plan, tmp_path):
    files = {"trl": ["trl/trainer/grpo_config.py", "trl/trainer/base_config.py"],
             "transformers": ["transformers/training_args.py"]}  # fmt: skip
    classes = {"grpo_config.py": "GRPOConfig", "base_config.py": "_BaseConfig", "training_args.py": "TrainingArguments"}
    declared = set()
    for package, paths in files.items():
        for path in paths:
            declared |= set(signature(source(lock, PYTHON, package, path), classes[path.split("/")[-1]]).parameters)
    told = trainer_arguments(plan.settings, plan.choice, [1.0], RunFolder(tmp_path))
    losses = [loss_fields(name, "group", on_card=True) for name in LOSSES]
    assert set(told).union({"generation_kwargs", "weight_decay"}, *losses) <= declared
    trainer = source(lock, PYTHON, "trl", "trl/trainer/grpo_trainer.py")
    assert any(f"self.{name} = " in trainer for name in CAPS)
    for read in ("def _generate_and_score_completions(", 'output["importance_sampling_ratio"] = ', "self._metrics["):
        assert read in trainer
    assert [fields["loss_type"] for fields in losses if f'"{fields["loss_type"]}"' not in trainer] == []


@pytest.mark.parametrize("file", ["vllm_client.py", "vllm_generation.py"])
def test_what_trl_imports_of_vllm_is_there(lock, file):
    wanted = list(imports_from(source(lock, PYTHON, "trl", f"trl/generation/{file}"), "vllm", absent={NEWER_THAN_OURS}))
    assert wanted
    for module, name in wanted:
        assert re.search(rf"\b{name}\b", source(lock, PYTHON, "vllm", f"{module.replace('.', '/')}.py")), module


@pytest.fixture
def vllm(lock, monkeypatch):
    """vLLM's engine, as its source declares it."""

    def of(file, name):
        return signature(source(lock, PYTHON, "vllm", f"vllm/{file}"), name)

    packages = {name: ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request")}
    reply = SimpleNamespace(outputs=[SimpleNamespace(finish_reason="stop", text="hi", token_ids=[1], logprobs=None)])
    llm = MagicMock()
    llm.generate = Declared(of("entrypoints/llm.py", "LLM.generate"), result=[reply])
    llm.sleep = Declared(of("entrypoints/llm.py", "LLM.sleep"))
    llm.get_tokenizer.return_value.return_value = {"input_ids": [1, 2]}
    options = of("engine/arg_utils.py", "EngineArgs")  # LLM hands its **kwargs to them
    packages["vllm"].__version__ = dict(line.split("==") for line in pins(lock, PYTHON))["vllm"]
    packages["vllm"].LLM = Declared(of("entrypoints/llm.py", "LLM.__init__"), result=llm, hands_on=[options])
    packages["vllm"].SamplingParams = Declared(of("sampling_params.py", "SamplingParams"))
    packages["vllm.lora.request"].LoRARequest = Declared(of("lora/request.py", "LoRARequest"))
    for name, package in packages.items():
        monkeypatch.setitem(sys.modules, name, package)
    return packages


@pytest.mark.parametrize("kind", [Kind.ADAPTER, Kind.MODEL])
def test_evaluation_asks_vllm_as_it_declares(lock, vllm, kind, monkeypatch):
    monkeypatch.setattr(vllm_engine, "lora_rank", lambda _: 32)
    monkeypatch.setattr(vllm_engine, "check_goes_with", lambda *_: None)
    card = card_named(CARDS[lock])
    monkeypatch.setattr(vllm_engine.hardware, "detect", lambda: card)
    known = source(lock, PYTHON, "vllm", "vllm/envs.py")
    for name, value in vllm_engine.vllm_environment(card).items():
        monkeypatch.setenv(name, value)
        assert f'"{name}"' in known or name in _since_0_26(lock)
    artefact = Artefact(name="adapter", kind=kind, path="some/path", base="some/base" if kind is Kind.ADAPTER else None)
    runtime = Runtime("vLLM", "float16", "float16")
    with open_engine(artefact, runtime, Room(64, 64, 8)) as engine:
        ((finished,),) = list(engine.generate([[{"role": "user", "content": "hi"}]], Sampling(64, logprobs=True)))
    assert finished[1].text == "hi"
    assert len(vllm["vllm"].SamplingParams.calls) == 1
    assert len(vllm["vllm.lora.request"].LoRARequest.calls) == (kind is Kind.ADAPTER)


@pytest.mark.parametrize("sleeps", [True, False])
def test_a_policys_own_vllm_is_asked_as_it_declares(lock, vllm, sleeps):
    llm = vllm["vllm"].LLM.result
    llm.llm_engine.vllm_config.model_config.enable_sleep_mode = sleeps
    load_lora = Declared(signature(source(lock, PYTHON, "unsloth-zoo", "unsloth_zoo/vllm_utils.py"), "load_lora"), "it")
    policy = MagicMock(vllm_engine=llm, load_lora=functools.partial(load_lora, "model"))
    policy.generation_config.eos_token_id = [7, 8]
    tokenizer = MagicMock(eos_token_id=7, return_value={"input_ids": [1, 2]})
    ((finished,),) = engine_of_policy(policy, tokenizer, 8).generate(
        [[{"role": "user", "content": "hi"}]], Sampling(64)
    )
    assert finished[1].text == "hi"
    assert llm.generate.calls[0]["lora_request"] == "it"
    assert vllm["vllm"].SamplingParams.calls[0]["stop_token_ids"] == [7, 8]
    assert llm.sleep.calls == [{"level": 2}] * sleeps


def test_an_argument_that_the_pinned_version_lacks_is_found(unsloth, plan, monkeypatch):
    declared = unsloth.from_pretrained
    fewer = [p for p in declared.signature.parameters.values() if p.name != "gpu_memory_utilization"]
    declared.signature = declared.signature.replace(parameters=fewer)
    declared.hands_on = []
    wrong = dataclasses.replace(plan, settings=dataclasses.replace(plan.settings, vllm="require"))
    with pytest.raises(Exception, match="gpu_memory_utilization"):
        model.load_for_training(wrong)
