"""The gate, with each thing sabotaged that it is there for, on a real export."""

import json
import os
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from kit.export.checks.check import ExportRefused
from kit.export.checks.gguf import answers_as_merged
from kit.export.checks.merged import says_the_same
from kit.export.evidence import evidence_of
from kit.export.ggufs import check_ggufs, make_ggufs
from kit.export.hub_upload import upload_list
from kit.export.merge import check_again, merged_as_it_is
from kit.export.record import ExportRecord
from kit.export.staging import staging
from kit.llama_cpp.gguf import convert
from kit.storage.run_folder import RunFolder
from tests.conftest import run_script, writing

_MATRIX = "model.layers.2.mlp.up_proj.weight"


@pytest.fixture
def run(chain, tmp_path):
    """A copy of the short run, to be damaged."""
    shutil.copy(chain / "base" / "model.safetensors", tmp_path / "base.safetensors")
    return RunFolder(shutil.copytree(chain / "short", tmp_path / "short"))


def check(run):
    """What ``merge_and_export.py --check`` does."""
    record, evidence = ExportRecord(run, say=lambda _: None), evidence_of(run)
    with staging(run) as scratch:
        check_ggufs(check_again(record, evidence), record, evidence, scratch)
    return record.content["checks"]


def edit_weights(file, change):
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def edit_json(file, change):
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_what_merged_was_made_of_is_known_while_training_goes_on(run):
    """Its adapter is not there until the end; what is exported by then is still of the one before."""
    record = ExportRecord(run, say=lambda _: None)
    made_of = record.content["merged"]["adapter_sha256"]
    evidence = evidence_of(run)
    shutil.rmtree(run.adapter)
    merged_as_it_is(record, evidence)
    assert record.content["merged"]["adapter_sha256"] == made_of


def test_a_good_export_passes_with_its_numbers(run):
    recorded = json.loads(run.export_file.read_text(encoding="utf-8"))
    assert all(result["passed"] for checks in recorded["checks"].values() for result in checks.values())
    again = check(run)
    first, second = (checks["merged"]["log_probabilities"]["rounding"] for checks in (recorded["checks"], again))
    assert second == pytest.approx(first, rel=1e-3)
    weights = again["merged"]["weights"]
    assert weights["rounded_otherwise"] == 0  # a merge on a processor is exact
    assert 0.9 < weights["change_kept_in_16_bits"] < 1.1
    f16, q8_0 = recorded["gguf"]["f16"], recorded["gguf"]["q8_0"]
    assert f16["mean_kl_from_f16"] < 1e-5
    assert 0 < q8_0["mean_kl_from_f16"] < 0.1
    assert 16 <= f16["bits_per_weight"] < 16.1
    assert 8.5 <= q8_0["bits_per_weight"] < 8.6


def test_what_is_exported_takes_texts_as_long_as_the_model_does(run):
    """Unsloth has its tokenizer say the training's own length."""
    length = json.loads((run.merged / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    for folder in (run.adapter, run.merged):
        assert json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"] == length


def test_an_adapter_of_zeros_is_refused_and_nothing_left(run):
    def clear(weights):
        for tensor in weights.values():
            tensor.zero_()

    edit_weights(run.adapter / "adapter_model.safetensors", clear)
    shutil.rmtree(run.merged)
    shutil.rmtree(run.gguf)
    refused = run_script("merge_and_export.py", run.path, check=False)
    assert refused.returncode == 3
    assert "zero everywhere" in refused.stderr
    assert not run.merged.exists()
    assert not run.gguf.exists()
    assert not (run.path / "export.partial").exists()


def scale_one_layer(run):
    def scale(weights):
        for name, tensor in weights.items():
            if ".layers.2." in name:
                tensor *= 1.05

    edit_weights(run.merged / "model.safetensors", scale)


def other_end_of_turn(run):
    edit_json(run.merged / "tokenizer_config.json", lambda config: config.update(eos_token="<|endoftext|>"))


def padding_is_end_of_turn(run):
    edit_json(run.merged / "tokenizer_config.json", lambda config: config.update(pad_token="<|im_end|>"))


def a_penalty(run):
    edit_json(run.merged / "generation_config.json", lambda config: config.update(repetition_penalty=1.1))


def no_chat_template(run):
    (run.merged / "chat_template.jinja").unlink(missing_ok=True)
    edit_json(run.merged / "tokenizer_config.json", lambda config: config.pop("chat_template", None))


def untied_embeddings(run):
    def untie(weights):
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()

    edit_weights(run.merged / "model.safetensors", untie)


def scale_one_matrix(run):
    edit_weights(run.merged / "model.safetensors", lambda weights: weights[_MATRIX].mul_(1.01))


def half_the_adapter(run):
    base = load_file(run.path.parent / "base.safetensors")

    def halve(weights):
        for name, tensor in weights.items():
            tensor.copy_((tensor.float() + base[name].float()) / 2)

    edit_weights(run.merged / "model.safetensors", halve)


def one_layer_left_out(run):
    base = load_file(run.path.parent / "base.safetensors")
    edit_weights(
        run.merged / "model.safetensors",
        lambda weights: weights.update({name: base[name] for name in weights if ".layers.1." in name}),
    )


def two_layers_swapped(run):
    base = load_file(run.path.parent / "base.safetensors")

    def swap(weights):
        other = _MATRIX.replace("layers.2", "layers.1")
        changes = {name: weights[name].float() - base[name].float() for name in (_MATRIX, other)}
        weights[_MATRIX] = (base[_MATRIX].float() + changes[other]).to(weights[_MATRIX].dtype)
        weights[other] = (base[other].float() + changes[_MATRIX]).to(weights[other].dtype)

    edit_weights(run.merged / "model.safetensors", swap)


def the_base(run):
    shutil.copy(run.path.parent / "base.safetensors", run.merged / "model.safetensors")


def a_norm_nudged(run):
    edit_weights(run.merged / "model.safetensors", lambda weights: weights["model.norm.weight"][:1].add_(0.01))


def a_tensor_less(run):
    edit_weights(run.merged / "model.safetensors", lambda weights: weights.pop("model.norm.weight"))


def a_tensor_more(run):
    bias = _MATRIX.replace("weight", "bias")
    edit_weights(run.merged / "model.safetensors", lambda weights: weights.update({bias: weights[_MATRIX][:, 0] * 1}))


def every_entry_one_place_off(run):
    edit_weights(run.merged / "model.safetensors", lambda weights: weights[_MATRIX].view(torch.int16).add_(1))


def one_entry_two_places_off(run):
    edit_weights(run.merged / "model.safetensors", lambda weights: weights[_MATRIX][0].view(torch.int16)[:1].add_(2))


def other_architecture(run):
    edit_json(run.merged / "config.json", lambda config: config.update(rms_norm_eps=1e-2))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (scale_one_layer, "these are not the trained weights"),
        (scale_one_matrix, r"layers\.2\.mlp\.up_proj\.weight has .* not base \+ change"),
        (half_the_adapter, "entries that are not base"),
        (one_layer_left_out, r"layers\.1\..* not base"),
        (two_layers_swapped, r"up_proj\.weight has .* \(and 1 more\)"),
        (the_base, "entries that are not base"),
        (a_norm_nudged, r"model\.norm\.weight is not the base's"),
        (a_tensor_less, r"model\.norm\.weight is missing"),
        (a_tensor_more, r"up_proj\.bias is not in the base"),
        (every_entry_one_place_off, "the farthest by 1 places"),
        (one_entry_two_places_off, "has 1 of .* the farthest by 2 places"),
        (other_architecture, "loaded as another model"),
        (other_end_of_turn, "the end-of-turn token is"),
        (padding_is_end_of_turn, "the pad token is the end-of-turn token"),
        (no_chat_template, "the chat template is missing"),
        (a_penalty, r"not scored with \(repetition_penalty\)"),
        (untied_embeddings, "no longer tied"),
    ],
)
def test_a_damaged_merge_is_refused(run, damage, words):
    damage(run)
    with pytest.raises(ExportRefused, match=words):
        check(run)


def test_no_gguf_is_made_from_a_damaged_merge(run):
    scale_one_layer(run)
    shutil.rmtree(run.gguf)
    refused = run_script("merge_and_export.py", run.path, "--only-gguf", "--gguf", "q8_0", check=False)
    assert refused.returncode == 3
    assert "these are not the trained weights" in refused.stderr
    assert not run.gguf.exists()


def test_an_adapter_that_merging_changes_is_refused(chain, tmp_path):
    """LoRA on an embedding that is the output head too: as an adapter it changes one of the two, merged both."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = chain / "base"
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(target_modules=["embed_tokens"]))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_embedding" in name:
            torch.nn.init.normal_(parameter.data, std=0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().to(torch.bfloat16).save_pretrained(tmp_path / "merged")
    talk = [[{"role": "user", "content": "9 + 9?"}, {"role": "assistant", "content": "9 + 9 = 18"}]]
    check = says_the_same(tmp_path / "merged", tmp_path / "adapter", str(base), talk)
    assert not check.passed
    assert "which is this base's output head too" in check.says


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 100 MB: too little for what the check wants to have free."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_refused_before_and_while_writing(chain, small_disk):
    kept = shutil.ignore_patterns("merged", "gguf", "export.json", "transcripts")
    run = RunFolder(shutil.copytree(chain / "short", small_disk / "short", ignore=kept))
    refused = run_script("merge_and_export.py", run.path, check=False)
    assert refused.returncode == 3
    assert "GB are free: make room" in refused.stderr
    shutil.copytree(chain / "short" / "merged", run.merged)
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(free - 5_000_000))  # an f16 GGUF of the demo has 26 MB
    record, evidence = ExportRecord(run, say=lambda _: None), evidence_of(run)

    def export_gguf():
        with staging(run) as scratch:
            make_ggufs(merged_as_it_is(record, evidence), ["q8_0"], record, evidence, scratch)

    with pytest.raises(ExportRefused, match="is full"):
        export_gguf()
    assert not run.gguf.exists()
    assert not run.unfinished_export.exists()


def test_where_memory_is_too_small_for_float32_the_weights_alone_are_compared(run, monkeypatch):
    monkeypatch.setattr("kit.export.weights.free_memory_bytes", lambda: 1_000_000)
    checks = check(run)
    assert "not looked at: it takes 0.1 GB of memory in float32" in checks["merged"]["log_probabilities"]["says"]
    assert "its trained weights were compared with merged's" in checks["short.f16.gguf"]["answers"]["says"]
    assert checks["short.q8_0.gguf"]["carries_adapter"]["passed"]


def test_an_export_beside_another_is_refused(run):
    other = writing(run.path)
    refused = run_script("merge_and_export.py", run.path, "--check", check=False)
    other.kill()
    assert (refused.returncode, f"{run.path} is written now by" in refused.stderr) == (2, True)


def test_a_gguf_answers_prompts_of_thousands_of_tokens_too(run, tmp_path):
    edit_json(run.merged / "config.json", lambda config: config.update(max_position_embeddings=16384))
    convert(run.merged, tmp_path / "long.gguf", "f16", "long")
    check = answers_as_merged(tmp_path / "long.gguf", run.merged, [[{"role": "user", "content": "9 + 9? " * 750}]])
    assert (check.numbers["tokens"], check.numbers["widest_gap"]) == (96, 0), check.says


def test_only_gguf_adds_a_type_and_needs_no_adapter(run):
    shutil.rmtree(run.adapter)
    run_script("merge_and_export.py", run.path, "--only-gguf", "--gguf", "Q4_K_M")
    recorded = json.loads(run.export_file.read_text(encoding="utf-8"))
    assert list(recorded["gguf"]) == ["f16", "q8_0", "q4_k_m"]
    assert "256 does not divide" in recorded["gguf"]["q4_k_m"]["note"]
    assert run.gguf_file("q4_k_m").exists()


def test_the_card_and_what_would_be_uploaded(run):
    import yaml

    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    scores = json.loads((run.path / "scores.json").read_text(encoding="utf-8"))
    assert all(f"| {row['name']} | {100 * row['strict']['accuracy']:.1f} [" in card for row in scores["rows"])
    assert all(command in card for command in ("llama-cli -m", "ollama create", "vllm serve", "from transformers"))
    files = upload_list(run)
    assert {"model.safetensors", "config.json", "short.q8_0.gguf", "Modelfile", "README.md", "export.json"} <= set(
        files
    )
    assert not any("adapter" in name or "sample" in name or "metrics" in name for name in files)
