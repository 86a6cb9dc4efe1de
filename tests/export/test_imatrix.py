"""An importance matrix from the run's own questions, and what is refused without one."""

import json
import shutil

import pytest

from kit.export.calibration import FEWEST_QUESTIONS, calibrate
from kit.export.evidence import evidence_of
from kit.llama_cpp.gguf import GgufFile, quantize
from kit.llama_cpp.imatrix import UNCHANGED, make_imatrix, matrix_used_in
from kit.prompts import format_reply
from kit.storage.run_folder import RunFolder, append_jsonl
from kit.training.rollout_batch import RolloutBatch
from tests.conftest import run_script

QUESTIONS = 80


@pytest.fixture(scope="module")
def run(chain, tmp_path_factory):
    """A copy of the short run that has asked more questions."""
    run = RunFolder(shutil.copytree(chain / "short", tmp_path_factory.mktemp("imatrix") / "short"))
    lines = (chain / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:QUESTIONS]
    asked = [json.loads(line) for line in lines]
    batch = RolloutBatch(
        questions=[row["question"] for row in asked],
        golds=["2"] * QUESTIONS,
        replies=[format_reply("1 + 1 = 2", "2")] * QUESTIONS,
        rewards={"correctness": [2.0] * QUESTIONS},
    )
    append_jsonl(run.samples_file, *batch.samples(step=3))
    return run


@pytest.fixture(scope="module")
def matrix(run, tmp_path_factory):
    return calibrate(evidence_of(run), run.merged, run.gguf_file("f16"), tmp_path_factory.mktemp("matrix"))


def test_it_knows_every_matrix_and_says_what_it_was_made_from(run, matrix, tmp_path):
    quantize(run.gguf_file("f16"), tmp_path / "x.gguf", "iq3_xxs", matrix)
    gguf = GgufFile(tmp_path / "x.gguf")
    used = matrix_used_in(gguf)
    assert used.made_from == "32 training questions with replies"
    assert used.matrices == 28  # 4 layers of 7
    assert used.windows >= 3
    assert gguf.value("quantize.imatrix.file") == "imatrix.gguf"  # and no path of this machine
    assert "iq3_xxs" in gguf.tensor_types
    assert matrix_used_in(GgufFile(run.gguf_file("q8_0"))) is None


def test_special_tokens_are_read_as_such(run, tmp_path):
    """Else the model would be measured on a prompt that it never meets."""
    talk = "<|im_start|>user\n9 + 9?<|im_end|>\n" * 60  # 60 x 10 tokens, and some 60 x 22 if they are spelled out
    file = make_imatrix(run.gguf_file("f16"), talk + talk, "a talk", tmp_path)
    quantize(run.gguf_file("f16"), tmp_path / "x.gguf", "q4_0", file)
    assert matrix_used_in(GgufFile(tmp_path / "x.gguf")).windows == 2


def test_it_changes_what_it_is_said_to_change(run, matrix, tmp_path):
    for kind in ("q4_k_m", "q8_0"):
        files = [tmp_path / f"{kind}.{by is not None}.gguf" for by in (None, matrix)]
        for file, by in zip(files, (None, matrix), strict=True):
            quantize(run.gguf_file("f16"), file, kind, by)
        name = "model.layers.1.mlp.down_proj.weight"
        one, other = (GgufFile(file).matrix(name) for file in files)
        assert (one == other).all() == (kind in UNCHANGED)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gguf", "iq3_xxs"], "needs an importance matrix, without one the model would be useless: add --imatrix"),
        (["--gguf", "q8_0", "f16", "--imatrix"], "--imatrix changes nothing in q8_0 f16"),
        (["--gguf", "iq3_xxs", "--imatrix"], f"samples.jsonl holds 6 ({FEWEST_QUESTIONS} are needed)"),
        (["--check", "--imatrix"], "--check makes none"),
    ],
)
def test_a_wrong_call_is_refused_in_a_sentence(chain, options, words):
    refused = run_script("merge_and_export.py", chain / "short", *options, check=False)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_the_command_records_it(run):
    said = run_script(
        "merge_and_export.py", run.path, "--only-gguf", "--gguf", "q8_0", "q2_k", "iq3_xxs", "--imatrix"
    ).stdout
    assert "by an importance matrix" in said
    entries = json.loads(run.export_file.read_text(encoding="utf-8"))["gguf"]
    assert {kind for kind, entry in entries.items() if "imatrix" in entry} == {"q2_k", "iq3_xxs"}
    assert "iq3_xxs" in entries["iq3_xxs"]["note"]
    assert 0 < entries["q8_0"]["mean_kl_from_f16"] < entries["iq3_xxs"]["mean_kl_from_f16"]
    run_script("merge_and_export.py", run.path, "--check")
    assert json.loads(run.export_file.read_text(encoding="utf-8"))["gguf"]["q2_k"]["imatrix"]["matrices"] == 28
