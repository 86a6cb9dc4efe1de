"""Adapters that this kit did not train: of other tools, of checkpoints, with a base that lies elsewhere by now."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from kit.export.adoption import _is_adopted, _record_of, adopt, check_adoption
from kit.export.checks.merged import says_the_same, tokens_agree, weights_agree
from kit.export.merge_weights import write_merged
from kit.storage.run_folder import RunFolder
from tests.conftest import run_script


@pytest.fixture
def foreign(chain, tmp_path):
    """The short run's adapter as another tool leaves it: no tokenizer, and a base on the machine that trained it."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(chain / "short" / "adapter" / name, folder)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "/workspace/models/gone"
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "optimizer.pt").write_bytes(b"not for an export")
    return folder


def test_it_is_exported_and_scored_as_our_own(chain, foreign, tmp_path):
    base, run = chain / "base", RunFolder(tmp_path / "adopted")
    run_script("merge_and_export.py", foreign, "--base", base, "--output-dir", run.path)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (chain / "short" / "merged", run.merged))
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert not (run.adapter / "optimizer.pt").exists()
    run_script("evaluate.py", run.path, "--dataset", chain / "data" / "heldout.jsonl", "--limit", "4")
    rows = [row["name"] for row in json.loads(run.scores_file.read_text(encoding="utf-8"))["rows"]]
    assert rows == ["base", "adapter", "merged", "q8_0"]
    run.report_file.write_text("of the export before", encoding="utf-8")
    run_script("merge_and_export.py", run.path, "--check")
    assert "adapter" in run.report_file.read_text(encoding="utf-8")
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert "an adapter that was trained elsewhere" in card
    assert "grpo" not in card.lower()
    train = run_script("train_lora.py", "--model", base, "--dataset", chain / "data" / "train.jsonl",
                       "--output-dir", run.path, check=False)  # fmt: skip
    assert (train.returncode, "trained elsewhere: name another folder" in train.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["merge_and_export.py", "{a}", "--base", "{b}"], "say where its export goes with --output-dir"),
        (["merge_and_export.py", "{a}", "--output-dir", "{p}/new"], "/workspace/models/gone does not exist"),
        (["merge_and_export.py", "{a}", "--output-dir", "{p}/new"], "(--base names another)"),
        (["merge_and_export.py", "{a}", "--base", "{p}/x", "--output-dir", "{p}/new"], "--base {p}/x does not exist"),
        (["merge_and_export.py", "{a}", "--base", "{b}", "--output-dir", "{short}"], "holds another run"),
        (["merge_and_export.py", "{a}", "--base", "{b}", "--output-dir", "{a}"], "holds something else"),
        (["merge_and_export.py", "{a}", "--base", "{b}", "--output-dir", "{p}/new", "--check"], "has no export yet"),
        (["merge_and_export.py", "{short}/adapter"], "name its run folder, {short}, or say where"),
        (["merge_and_export.py", "{short}", "--output-dir", "{p}/new"], "--output-dir is for an adapter's folder"),
        (["evaluate.py", "{a}", "--output-dir", "{p}/new"], "(--base names another)"),
    ],
)
def test_what_is_missing_is_said_and_nothing_written(chain, foreign, tmp_path, arguments, words):
    places = {"a": foreign, "b": chain / "base", "p": tmp_path, "short": chain / "short"}
    said = run_script(*(argument.format(**places) for argument in arguments), check=False)
    assert (said.returncode, "Traceback" in said.stderr) == (2, False)
    assert words.format(**places) in said.stderr
    assert not (tmp_path / "new").exists()


def test_a_checkpoint_takes_base_and_prompt_from_its_run(chain, tmp_path):
    checkpoint = RunFolder(shutil.copytree(chain / "short", tmp_path / "run")).path / "checkpoints" / "checkpoint-3"
    shutil.copytree(chain / "short" / "adapter", checkpoint, dirs_exist_ok=True)
    assert check_adoption(checkpoint, None, tmp_path / "new").base_model() == RunFolder(chain / "short").base_model()


def test_a_checkpoint_is_scored_with_its_runs_decimal_mark(tmp_path):
    run, alone = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "alone", "base")
    checkpoint = run.checkpoints / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (checkpoint / name).write_text("{}", encoding="utf-8")
    run.write({"settings": {"decimal_mark": "comma"}})
    adopt(checkpoint, alone)
    assert alone.read()["settings"]["decimal_mark"] == "comma"


def test_added_tokens_are_merged(chain, tmp_path):
    """Rows of the embedding that the base does not have come with the adapter."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, adapter, merged = str(chain / "base"), tmp_path / "adapter", tmp_path / "merged"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|mine|>"]})
    model.resize_token_embeddings(len(tokenizer))
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "up_proj"]))
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.02)
    adapted.save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    write_merged(adapter, base, merged)
    talk = [[{"role": "user", "content": "9 + 9?"}, {"role": "assistant", "content": "<|mine|> 9 + 9 = 18"}]]
    checks = [tokens_agree(merged, adapter), weights_agree(merged, adapter, base)]
    checks.append(says_the_same(merged, adapter, base, talk))
    assert all(check.passed for check in checks), [check.says for check in checks]
    assert len(load_file(merged / "model.safetensors")["model.embed_tokens.weight"]) == len(tokenizer)


def test_another_adapter_at_the_same_place_of_another_project_is_another(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "exported", base="some/base")
    for project in ("one", "two"):
        adapter = tmp_path / project / "out"
        adapter.mkdir(parents=True)
        (adapter / "adapter_model.safetensors").write_text(project)
        (adapter / "adapter_config.json").write_text("{}")
    shutil.copytree(tmp_path / "one" / "out", run.adapter)
    monkeypatch.chdir(tmp_path / "one")
    run.write(_record_of(Path("out"), run))
    assert _is_adopted(run, Path("out"))
    monkeypatch.chdir(tmp_path / "two")
    assert not _is_adopted(run, Path("out"))
