"""What will run an artefact is known before anything loads. The card is a fake: its name and memory alone."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from kit.generation.artefacts import Artefact, Kind
from kit.generation.runtime import Room, choose_runtime
from kit.generation.vllm_engine import _within
from kit.planning import hardware
from kit.planning.engine_choice import VllmNotLoaded
from kit.planning.gpus import card_named

Q = "base_model.model.model.layers.0.self_attn.q_proj"
FACTORS = [f"{Q}.lora_A.weight", f"{Q}.lora_B.weight"]


def adapter(folder, tensors, **config):
    folder.mkdir()
    save_file({name: np.zeros((2, 2), np.float32) for name in tensors}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config))
    return Artefact("adapter", Kind.ADAPTER, str(folder), base=str(folder))


BEYOND = [
    (FACTORS, {"alpha_pattern": {"q_proj": 1}}, "a scale for each module"),
    (FACTORS, {"rank_pattern": {"q_proj": 1}}, "a rank for each module"),
    (FACTORS, {"peft_type": "IA3"}, "is IA3 and no LoRA"),
    ([*FACTORS, f"{Q}.lora_magnitude_vector"], {"use_dora": True}, "lora_magnitude_vector besides LoRA's factors"),
    ([*FACTORS, "base_model.model.model.norm.weight"], {}, "norm.weight besides LoRA's factors"),
    ([name.replace(Q, "base_model.model.lm_head") for name in FACTORS], {}, "changes the output head"),
]


@pytest.mark.parametrize(("tensors", "config", "words"), BEYOND)
def test_an_adapter_that_vllm_would_answer_otherwise_for_is_left_to_transformers(
    tmp_path, monkeypatch, tensors, config, words
):
    artefact = adapter(tmp_path / "adapter", tensors, **config)
    assert choose_runtime(artefact).engine == "transformers"  # without a card PEFT merges it, whatever it is
    monkeypatch.setattr(hardware, "detect", lambda: card_named("rtx3060-12gb"))
    with pytest.raises(VllmNotLoaded, match=f"{words}.*, which vLLM's LoRA does not know"):
        choose_runtime(artefact)
    assert choose_runtime(artefact, vllm="off").engine == "transformers"


def test_plain_lora_is_vllms_however_it_is_scaled(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "detect", lambda: card_named("rtx3060-12gb"))
    for place, config in enumerate(({}, {"use_rslora": True}, {"alpha_pattern": {}, "rank_pattern": {}})):
        assert choose_runtime(adapter(tmp_path / str(place), FACTORS, **config)).engine == "vLLM"


@pytest.mark.parametrize(
    ("name", "is_small"), [("rtx3060-laptop-6gb", True), ("rtx4060-8gb", True), ("rtx4090", False)]
)
def test_a_small_card_keeps_room_beside_vllms_share_and_is_given_less_to_do_at_a_time(name, is_small):
    card = card_named(name)
    told = _within(card, Room(512, 3000, 64))
    assert card.free_gib - told["gpu_memory_utilization"] * card.memory_gib >= 1.29  # CUDA's context, graphs
    at_a_time = {"max_num_seqs": 64, "max_num_batched_tokens": 3512}  # not fewer tokens than a prompt with its reply
    assert {name: told.get(name) for name in at_a_time} == (at_a_time if is_small else dict.fromkeys(at_a_time))
