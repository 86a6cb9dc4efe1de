"""Adapters of every kind and from everywhere: merged as they are meant, or refused before a part of one is lost."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from kit.cli.errors import UserError
from kit.export.adoption import adopt, check_adoption
from kit.export.checks.merged import tokens_agree, weights_agree
from kit.export.merge_weights import write_merged
from kit.models.adapter_fit import check_embedding
from kit.models.merged_tensors import check_goes_with, merged_tensors
from kit.storage.generation_settings import ends_of_turn
from tests.conftest import run_script


def base_of(folder, layers=2, width=32, tied=False):
    torch.manual_seed(layers)
    config = LlamaConfig(vocab_size=64, hidden_size=width, intermediate_size=48, num_hidden_layers=layers,
                         num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=tied)  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def adapter_on(base, folder, **config):
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**config))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.05)
    adapted.save_pretrained(folder)
    return folder


PLAIN = {"target_modules": ["q_proj", "down_proj"]}


@pytest.mark.parametrize(("of", "on", "words"), [(4, 2, "have no place there"), (2, 4, "asks for are lacking")])
def test_one_of_another_depth_is_refused(tmp_path, of, on, words):
    adapter = adapter_on(base_of(tmp_path / "theirs", of), tmp_path / "adapter", **PLAIN)
    base = base_of(tmp_path / "base", on)
    with pytest.raises(UserError, match=words):
        write_merged(adapter, str(base), tmp_path / "merged")
    with pytest.raises(UserError, match=words):  # before vLLM, which would leave out what has no place
        check_goes_with(adapter, str(base))


def test_one_of_another_width_is_refused_in_a_sentence(tmp_path):
    adapter = adapter_on(base_of(tmp_path / "theirs", width=64), tmp_path / "adapter", **PLAIN)
    with pytest.raises(UserError, match=r"does not go with .*, PEFT says: "):
        check_goes_with(adapter, str(base_of(tmp_path / "base")))
    check_goes_with(adapter, "someone/model")  # which is yet to be fetched


def test_one_whose_names_are_wrong_in_a_layer_is_refused(tmp_path):
    base = base_of(tmp_path / "base")
    adapter = adapter_on(base, tmp_path / "adapter", **PLAIN)
    file = adapter / "adapter_model.safetensors"
    twice = {name.replace("model.model.layers.1", "model.base_model.model.model.layers.1"): tensor
             for name, tensor in load_file(file).items()}  # fmt: skip
    save_file(twice, file)
    with pytest.raises(UserError, match="have no place there"):
        list(merged_tensors(adapter, str(base)))


@pytest.mark.parametrize(
    "config",
    [
        PLAIN, PLAIN | {"use_dora": True}, PLAIN | {"bias": "all"}, PLAIN | {"modules_to_save": ["lm_head", "norm"]},
        PLAIN | {"rank_pattern": {"q_proj": 3}, "use_rslora": True}, {"target_modules": "all-linear"},
        {"target_modules": ["embed_tokens", "lm_head"]}, PLAIN | {"layers_to_transform": [1]},
        PLAIN | {"trainable_token_indices": [3, 5]}, PLAIN | {"target_parameters": ["mlp.up_proj.weight"]},
    ],
)  # fmt: skip
def test_one_of_any_kind_of_lora_on_its_own_base_is_not(tmp_path, config):
    base = base_of(tmp_path / "base")
    adapter = adapter_on(base, tmp_path / "adapter", **config)
    changed = [name for name, _, expected in merged_tensors(adapter, str(base)) if expected is not None]
    assert changed


@pytest.mark.parametrize("config", [{"modules_to_save": ["embed_tokens"]}, {"target_modules": ["embed_tokens"]}])
def test_one_that_no_merge_can_be_is_refused_whatever_memory_there_is(tmp_path, config):
    tied, untied = base_of(tmp_path / "tied", tied=True), base_of(tmp_path / "untied")
    adapter = adapter_on(tied, tmp_path / "adapter", **({"target_modules": ["q_proj"]} | config))
    with pytest.raises(UserError, match="Train it again without embed_tokens"):
        check_embedding(adapter, str(tied))
    check_embedding(adapter, str(untied))


@pytest.fixture
def plain(chain, tmp_path):
    """An adapter on the chain's base, with the tokenizer of it."""
    adapter = adapter_on(chain / "base", tmp_path / "adapter", target_modules=["q_proj"])
    tokenizer = AutoTokenizer.from_pretrained(chain / "base")
    return adapter, tokenizer


def test_the_end_of_turn_that_it_was_taught_ends_replies_of_merged(chain, plain, tmp_path):
    adapter, tokenizer = plain
    tokenizer.eos_token = "<|im_start|>"
    tokenizer.save_pretrained(adapter)
    merged = tmp_path / "merged"
    write_merged(adapter, str(chain / "base"), merged)
    assert tokenizer.eos_token_id in ends_of_turn(merged)
    assert tokenizer.eos_token_id in json.loads((merged / "config.json").read_text())["eos_token_id"]
    assert tokens_agree(merged, adapter).passed
    shutil.copy(chain / "base" / "generation_config.json", merged)
    assert "ends a turn with" in tokens_agree(merged, adapter).says


def test_a_tokenizer_that_ends_nothing_leaves_the_ends_as_they_are(chain, plain, tmp_path):
    adapter, tokenizer = plain
    tokenizer.eos_token = None
    tokenizer.save_pretrained(adapter)
    write_merged(adapter, str(chain / "base"), tmp_path / "merged")
    assert ends_of_turn(tmp_path / "merged") == ends_of_turn(chain / "base")
    assert "ends a turn with" not in tokens_agree(tmp_path / "merged", adapter).says


def test_a_base_that_pads_with_its_end_of_turn_is_mended_when_it_is_merged(chain, plain, tmp_path):
    adapter, tokenizer = plain
    base = shutil.copytree(chain / "base", tmp_path / "base")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(base)
    write_merged(adapter, str(base), tmp_path / "merged")
    check = tokens_agree(tmp_path / "merged", base)
    assert check.passed, check.says


def test_of_several_chat_templates_the_usual_one_is_kept(chain, plain, tmp_path):
    adapter, tokenizer = plain
    usual = tokenizer.chat_template
    tokenizer.chat_template = {"default": usual, "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(adapter)
    write_merged(adapter, str(chain / "base"), tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == usual
    assert tokens_agree(tmp_path / "merged", adapter).passed


def test_a_sum_that_does_not_fit_16_bits_is_refused(chain, plain, tmp_path):
    adapter, _ = plain
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor * (1e7 if "lora_B" in name else 1) for name, tensor in load_file(file).items()}, file)
    write_merged(adapter, str(chain / "base"), tmp_path / "merged")
    check = weights_agree(tmp_path / "merged", adapter, str(chain / "base"))
    assert (check.passed, "NaN or infinite" in check.says) == (False, True)


def test_one_that_was_mended_is_read_again(chain, plain, tmp_path):
    adapter, _ = plain
    (adapter / "model.safetensors").write_bytes(
        (adapter / "adapter_model.safetensors").read_bytes()
    )  # some save it all
    for alpha in (16, 64):
        adapter_on(chain / "base", adapter, target_modules=["k_proj"])  # other weights at the same place
        file = adapter / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": alpha}))
        run = check_adoption(adapter, str(chain / "base"), tmp_path / "run")
        adopt(adapter, run)
        assert json.loads((run.adapter / "adapter_config.json").read_text())["lora_alpha"] == alpha
        assert not (run.adapter / "model.safetensors").exists()


def test_evaluation_says_that_one_does_not_go_with_its_base(chain, tmp_path):
    adapter = adapter_on(base_of(tmp_path / "theirs", width=64), tmp_path / "adapter", **PLAIN)
    AutoTokenizer.from_pretrained(chain / "base").save_pretrained(adapter)
    said = run_script("evaluate.py", adapter, "--base", chain / "base", "--dataset", chain / "data" / "heldout.jsonl",
                      "--limit", 2, "--vllm", "off", "--output-dir", tmp_path / "scores", check=False)  # fmt: skip
    assert (said.returncode, "Traceback" in said.stderr) == (2, False), said.stderr
    assert "cannot be loaded" in said.stderr
    assert "size mismatch" in said.stderr
