"""The whole chain on a real model that you name, for what a tiny one cannot show: `make real MODEL=FOLDER`.

Skips itself without REAL_MODEL. Two steps with a reward that differs between replies; nothing is learned on purpose.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from kit.export.checks.merged import weights_agree
from kit.llama_cpp.gguf import GgufFile
from kit.storage.generation_settings import shapes_replies
from kit.storage.run_folder import RunFolder, read_jsonl
from tests.conftest import run_script
from tests.greedy import as_gguf, assert_the_same_replies, copy_that_asks_for_penalties

MODEL = os.environ.get("REAL_MODEL", "")
pytestmark = [pytest.mark.real, pytest.mark.skipif(not MODEL, reason="REAL_MODEL names no model folder")]
QUESTIONS = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    run_script("-m", "demo.problems", folder)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("real") / "real")
    run_script(
        "train_lora.py", "--model", MODEL, "--dataset", data / "train.jsonl", "--output-dir", run.path,
        "--max-steps", 2, "--num-generations", 4, "--batch-size", 4, "--gradient-accumulation-steps", 1,
        "--max-completion-length", 48, "--learning-rate", "5e-4", "--warmup-steps", 0,
        "--rewards", "tests/gpu/rewards_for_noise.py:letters",
    )  # fmt: skip
    run_script("merge_and_export.py", run.path, "--gguf", "f16", "q8_0")
    run_script("evaluate.py", run.path, "--dataset", data / "heldout.jsonl", "--limit", QUESTIONS)
    return run


def replies(run, name):
    return [row["reply"] for row in read_jsonl(run.transcripts / f"{name}.jsonl")]


def test_training_changed_the_model_and_the_export_says_the_same(run):
    assert replies(run, "base") != replies(run, "adapter")
    for one, other in (("adapter", "merged"), ("merged", "f16")):
        same = sum(a == b for a, b in zip(replies(run, one), replies(run, other), strict=True))
        assert same >= 0.9 * QUESTIONS, (one, other, same)


def test_the_export_passed_and_says_what_it_was_scored_with(run):
    recorded = json.loads(run.export_file.read_text(encoding="utf-8"))
    assert all(result["passed"] for checks in recorded["checks"].values() for result in checks.values())
    assert recorded["checks"]["merged"]["weights"]["change_kept_in_16_bits"] > 0.9
    assert shapes_replies(run.merged) == {}
    assert GgufFile(run.gguf_file("q8_0")).value("general.sampling.temp") == 0.0


def scaled(factor):
    return lambda merged, _: merged[_a_matrix(merged)].mul_(factor)


def half_the_adapter(merged, base):
    for name in merged.keys() & base.keys():
        merged[name] = ((merged[name].float() + base[name].float()) / 2).to(merged[name].dtype)


def one_layer_left_out(merged, base):
    merged.update({name: base[name].to(merged[name].dtype) for name in merged if ".layers.3." in name})


def two_layers_swapped(merged, base):
    one, other = _a_matrix(merged), _a_matrix(merged).replace(".2.", ".4.")
    changes = {name: merged[name].float() - base[name].float() for name in (one, other)}
    merged[one] = (base[one].float() + changes[other]).to(merged[one].dtype)
    merged[other] = (base[other].float() + changes[one]).to(merged[other].dtype)


def the_base(merged, base):
    merged.update({name: base[name].to(merged[name].dtype) for name in merged})


def _a_matrix(merged):
    return next(name for name in merged if name.endswith("layers.2.mlp.up_proj.weight"))


@pytest.mark.parametrize(
    "damage", [scaled(1.01), scaled(1.05), half_the_adapter, one_layer_left_out, two_layers_swapped, the_base]
)
def test_a_damaged_merge_is_refused(run, tmp_path, damage):
    folder = Path(shutil.copytree(run.merged, tmp_path / "merged"))
    (file,) = folder.glob("*.safetensors")
    merged = load_file(file)
    damage(merged, load_file(next(Path(MODEL).glob("*.safetensors"))))
    save_file(merged, file, metadata={"format": "pt"})
    assert not weights_agree(folder, run.adapter, MODEL).passed


@pytest.mark.parametrize("engine", ["transformers", "llama.cpp"])
def test_its_generation_settings_change_no_reply(data, tmp_path, engine):
    asking = copy_that_asks_for_penalties(Path(MODEL), tmp_path / "asking")
    quiet = Path(MODEL)
    if engine == "llama.cpp":
        quiet, asking = as_gguf(quiet, tmp_path / "quiet.gguf"), as_gguf(asking, tmp_path / "asking.gguf")
    assert_the_same_replies(quiet, asking, data / "heldout.jsonl", engine, questions=4)
