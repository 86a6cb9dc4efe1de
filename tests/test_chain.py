"""The whole journey, with nothing mocked: Unsloth in 4-bit, PEFT, TRL, the merge, llama.cpp, the scores."""

import json

import pytest
import yaml

from kit.grading import flexible_answer, gold_answer, strict_answer
from kit.prompts import parse_reply
from kit.storage.run_folder import RunFolder
from tests.conftest import run_script


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def run(chain):
    return chain / "short"


def transcript(run, name):
    return read_jsonl(run / "transcripts" / f"{name}.jsonl")


def test_every_step_is_logged_once_from_one(run):
    metrics = RunFolder(run).steps()
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert all(0 <= line["format_rate"] <= 1 and set(line["rewards"]) >= {"correctness"} for line in metrics)


def test_samples_hold_replies_with_their_rewards(run):
    samples = read_jsonl(run / "samples.jsonl")
    assert len(samples) == 3 * 16
    for sample in samples:
        assert sample["rewards"]["soft_format"] == parse_reply(sample["reply"]).soft


def test_run_yaml_says_what_the_trainer_received(run):
    content = yaml.safe_load((run / "run.yaml").read_text(encoding="utf-8"))
    assert content["settings"]["max_steps"] == content["trainer"]["max_steps"] == 3
    assert content["settings"]["learning_rate"] == content["trainer"]["learning_rate"] == 1e-3
    assert content["reward_weights"]["correctness"] == 2.0
    assert content["system_prompt"].startswith("Respond in the following format")
    assert {"trl", "unsloth", "peft"} <= set(content["versions"])
    assert len(content["data"]["fingerprint"]) == 16


def test_training_moved_the_adapter(run):
    from safetensors import safe_open

    with safe_open(run / "adapter" / "adapter_model.safetensors", "pt") as weights:
        changed = [weights.get_tensor(name).abs().max().item() for name in weights.keys() if "lora_B" in name]  # noqa: SIM118
    assert len(changed) == 4 * 7  # every projection of every layer
    assert min(changed) > 0  # LoRA's B starts at zero


def test_scores_hold_a_row_for_every_artefact(run):
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in scores["rows"]] == ["base", "adapter", "merged", "f16", "q8_0"]
    assert {row["questions"] for row in scores["rows"]} == {50}
    precision = {row["name"]: row["precision"] for row in scores["rows"]}
    assert precision["merged"] == "float32"
    assert precision["adapter"] == "float32, 16-bit base"


def test_replaying_the_transcripts_gives_the_scores(run):
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    for row in scores["rows"]:
        lines = transcript(run, row["name"])
        assert [line["index"] for line in lines] == list(range(50))
        strict = [strict_answer(line["reply"]) == gold_answer(line["gold"]) for line in lines]
        flexible = [flexible_answer(line["reply"]) == gold_answer(line["gold"]) for line in lines]
        assert sum(strict) / 50 == row["strict"]["accuracy"]
        assert sum(flexible) / 50 == row["flexible"]["accuracy"]
        assert sum(parse_reply(line["reply"]).soft for line in lines) / 50 == row["format_rate"]
        assert sum(line["truncated"] for line in lines) / 50 == row["truncated_rate"]
        assert sum(line["tokens"] for line in lines) / 50 == row["mean_completion_tokens"]


def test_training_changed_what_the_model_says(run):
    assert [line["reply"] for line in transcript(run, "base")] != [line["reply"] for line in transcript(run, "adapter")]


@pytest.mark.parametrize(("one", "other"), [("adapter", "merged"), ("merged", "f16")])
def test_export_says_the_same(run, one, other):
    """In float32 and 16-bit weights only near-ties differ: at least 98 % of the replies are the same text."""
    pairs = zip(transcript(run, one), transcript(run, other), strict=True)
    assert sum(a["reply"] == b["reply"] for a, b in pairs) >= 0.98 * 50


def test_merged_folder_is_an_ordinary_16_bit_model(run):
    from safetensors import safe_open

    config = json.loads((run / "merged" / "config.json").read_text(encoding="utf-8"))
    assert config["tie_word_embeddings"] is True
    assert "quantization_config" not in config
    with safe_open(run / "merged" / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} <= {"BF16", "F16"}  # noqa: SIM118


def test_ask_prints_one_reply_from_llama_cpp(run):
    gguf = run / "gguf" / "short.q8_0.gguf"
    asked = run_script("evaluate.py", gguf, "--ask", "Ana has 3 apples and gets 4 more. How many apples now?")
    assert asked.stdout.strip()


def test_an_occupied_run_folder_is_refused(run):
    refused = run_script("train_lora.py", "--config", "tests/short.yaml", "--output-dir", run, check=False)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    assert (run / "adapter").exists()


@pytest.mark.slow
def test_a_base_of_4_bit_weights_is_merged_into_16_bit_ones(chain, tmp_path):
    """Trained on the one, merged, checked and scored on the other. A folder's twin is the one that the user names."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    base = shutil.copytree(chain / "base", tmp_path / "base")
    in_4bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        bnb_4bit_use_double_quant=True,
    )
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=in_4bit)
    model.save_pretrained(tmp_path / "base-bnb-4bit")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "base-bnb-4bit")
    run = tmp_path / "run"
    run_script(
        "train_lora.py", "--config", "demo/recipe.yaml", "--model", tmp_path / "base-bnb-4bit", "--max-steps", "2",
        "--dataset", chain / "data" / "train.jsonl", "--output-dir", run,
    )  # fmt: skip
    refused = run_script("merge_and_export.py", run, check=False)
    assert refused.returncode == 2
    assert "holds quantized weights" in refused.stderr
    (run / "run.yaml").write_text((run / "run.yaml").read_text().replace("base-bnb-4bit", "base"))
    run_script("merge_and_export.py", run)
    checks = json.loads((run / "export.json").read_text())["checks"]
    assert checks["merged"]["log_probabilities"]["rounding"] < 0.05
    run_script("evaluate.py", run, "--dataset", chain / "data" / "heldout.jsonl", "--limit", "5")
    scores = json.loads((run / "scores.json").read_text())
    assert scores["rows"][0]["path"] == str(base)  # compared with what merging started from
    assert scores["rows"][1]["precision"] == "float32, 16-bit base"
