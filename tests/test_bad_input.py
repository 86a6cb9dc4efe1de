"""Wrong calls: one sentence each, exit status 2, all at once, nothing heavy loaded, nothing on disk touched."""

import json
import os
import shutil

import pytest

from tests.conftest import run_script

ROW = '{"question": "9 + 9?", "answer": "#### 18"}\n'


@pytest.fixture
def place(tmp_path):
    """A folder with a good data set, a folder that looks like a model, and things that are wrong."""
    (tmp_path / "good.jsonl").write_text(ROW * 4)
    (tmp_path / "one.jsonl").write_text(ROW)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text(ROW + "{oops\n")
    (tmp_path / "no-answer.jsonl").write_text(ROW + '{"question": "9 + 9?"}\n')
    (tmp_path / "unreadable.jsonl").write_text(ROW + '{"question": "9 + 9?", "answer": "many"}\n')
    (tmp_path / "mine.py").write_text("def f(completions, level, **kwargs):\n    return level\n")
    (tmp_path / "bad.yaml").write_text("max_steps: [1\n")
    (tmp_path / "typo.yaml").write_text("max_stepz: 3\n")
    for name, weights in (("model", "model.safetensors"), ("pickled", "pytorch_model.bin")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / weights).write_bytes((2).to_bytes(8, "little") + b"{}")
    (tmp_path / "stuff").mkdir()
    (tmp_path / "stuff" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "run.yaml").write_text(f"settings:\n  model: {tmp_path / 'model'}\n  lora_rank: 4\n")
    shutil.copytree(tmp_path / "model", tmp_path / "model2")
    return tmp_path


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


TRAIN = ["train_lora.py", "--model", "{p}/model", "--dataset", "{p}/good.jsonl", "--output-dir", "{p}/new"]
WRONG_CALLS = {
    "missing data file": ([*TRAIN, "--dataset", "{p}/none.jsonl"], "none.jsonl does not exist"),
    "empty data set": ([*TRAIN, "--dataset", "{p}/empty.jsonl"], "holds no questions"),
    "line that does not parse": ([*TRAIN, "--dataset", "{p}/broken.jsonl"], "line 2: is not JSON"),
    "row without an answer": ([*TRAIN, "--dataset", "{p}/no-answer.jsonl"], "line 2: has no 'answer'"),
    "answer that is no number": ([*TRAIN, "--dataset", "{p}/unreadable.jsonl"], "line 2: no single number"),
    "unknown column": ([*TRAIN, "--answer-column", "gold"], "has no 'gold'"),
    "file that is no Hub id": ([*TRAIN, "--dataset", "some/none.csv"], "some/none.csv does not exist"),
    "fewer questions than a step asks": (
        [*TRAIN, "--dataset", "{p}/one.jsonl"],
        "a step asks 4 questions (32 completions in groups of 8), and there is 1: give more, or make --batch-size",
    ),
    "split of a file": ([*TRAIN, "--split", "test"], "--split test is for Hub data sets"),
    "reward that wants a column": ([*TRAIN, "--rewards", "{p}/mine.py:f"], "f wants 'level', which the data lack"),
    "data set that is a folder": ([*TRAIN, "--dataset", "{p}/stuff"], "is a folder: name the data file in it"),
    "unknown reward": ([*TRAIN, "--rewards", "correctnes"], "there is no 'correctnes'"),
    "group of one": ([*TRAIN, "--num-generations", "1"], "it must be 2 or more"),
    "negative rank": ([*TRAIN, "--lora-rank", "-4"], "--lora-rank is -4"),
    "rate that is no number": ([*TRAIN, "--learning-rate", "fast"], "--learning-rate is fast, which is no number"),
    "unknown schedule": ([*TRAIN, "--lr-scheduler-type", "zigzag"], "choose from constant_with_warmup"),
    "batch and group": ([*TRAIN, "--batch-size", "6", "--gradient-accumulation-steps", "1"], "make the product 8"),
    "YAML that does not parse": ([*TRAIN, "--config", "{p}/bad.yaml"], "is no YAML"),
    "reporter that is not installed": ([*TRAIN, "--report-to", "trackio"], "pip install trackio"),
    "unknown YAML key": ([*TRAIN, "--config", "{p}/typo.yaml"], "did you mean max_steps?"),
    "missing config": ([*TRAIN, "--config", "{p}/none.yaml"], "none.yaml cannot be read"),
    "unknown option": ([*TRAIN, "--max-stepz", "3"], "did you mean --max-steps?"),
    "option without its value": ([*TRAIN, "--seed"], "--seed: expected one argument"),
    "run of other settings": ([*TRAIN, "--output-dir", "{p}/run"], "other settings (lora_rank "),
    "folder that is no run": ([*TRAIN, "--output-dir", "{p}/stuff", "--overwrite"], "something that is no run"),
    "folder that is no run, with a mirror": (
        [*TRAIN, "--output-dir", "{p}/stuff", "--mirror", "{p}/drive", "--overwrite"],
        "something that is no run",
    ),
    "mirror onto itself": ([*TRAIN, "--mirror", "{p}"], "onto itself"),
    "output that is a file": ([*TRAIN, "--output-dir", "{p}/good.jsonl"], "is a file"),
    "folder that is no model": ([*TRAIN, "--model", "{p}/stuff"], "is no model folder"),
    "pickled weights": ([*TRAIN, "--model", "{p}/pickled"], "holds no .safetensors weights"),
    "model that does not exist": ([*TRAIN, "--model", "{p}/none"], "does not exist"),
    "model on an unreachable Hub": ([*TRAIN, "--model", "some/model"], "the Hub cannot be reached"),
    "data on an unreachable Hub": ([*TRAIN, "--dataset", "some/data"], "the Hub cannot be reached"),
    "export of no run": (["merge_and_export.py", "{p}/stuff"], "is no run folder"),
    "export before training": (["merge_and_export.py", "{p}/run"], "holds no adapter"),
    "path behind an option that takes several": (
        ["merge_and_export.py", "--gguf", "q4_k_m", "{p}/run"],
        "required: PATH (before the options",
    ),
    "unknown quantization": (["merge_and_export.py", "{p}/run", "--gguf", "q4_k_n"], "did you mean q4_k"),
    "type that needs an importance matrix": (
        ["merge_and_export.py", "{p}/run", "--gguf", "iq2_xs"],
        "needs an importance matrix",
    ),
    "check before the export": (["merge_and_export.py", "{p}/run", "--check"], "run without --check"),
    "upload without a login": (["merge_and_export.py", "{p}/run", "--push-to-hub", "some/model"], "hf auth login"),
    "upload to a path": (["merge_and_export.py", "{p}/run", "--push-to-hub", "./model"], "is no Hub id"),
    "comparison of no scores": (["evaluate.py", "--compare", "{p}/good.jsonl", "{p}/x.json"], "is no scores.json"),
    "comparison and scoring at once": (["evaluate.py", "{p}/m", "--compare", "a", "b"], "or two scores.json"),
    "temperature of nothing": (["evaluate.py", "{p}/model", "--temperature", "0"], "'0' is no number above 0"),
    "score of nothing": (["evaluate.py", "{p}/stuff", "--dataset", "{p}/good.jsonl"], "is no model folder"),
    "score of a missing GGUF": (["evaluate.py", "{p}/x.gguf", "--dataset", "{p}/good.jsonl"], "x.gguf does not exist"),
    "no place for scores": (["evaluate.py", "{p}/model", "--dataset", "{p}/good.jsonl"], "--output-dir DIR"),
    "limit of none": (["evaluate.py", "{p}/model", "--limit", "0"], "'0' is no whole number from 1"),
    "question to many": (["evaluate.py", "{p}/model", "{p}/model2", "--ask", "9 + 9?"], "wants one artefact"),
    "temperature without samples": (["evaluate.py", "{p}/model", "--temperature", "0.7"], "add --samples K"),
    "no path": (["evaluate.py"], "name what to score"),
}


@pytest.mark.parametrize(("call", "words"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_a_wrong_call(place, call, words):
    before = files(place)
    no_network = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(place / "hf"),
        "PYTHONDONTWRITEBYTECODE": "1",  # Python's own, beside an own reward function
    }
    refused = run_script(*(part.format(p=place) for part in call), check=False, env=no_network)
    assert refused.returncode == 2, refused.stderr
    assert words in refused.stderr
    assert refused.stderr.count("\n") == refused.stderr.count("error: ")  # sentences, no traceback
    assert "Unsloth" not in refused.stdout  # nothing heavy
    assert files(place) == before
    assert not (place / "new").exists()


def test_all_problems_of_a_command_line_come_together(place):
    call = ["train_lora.py", "--model", place / "none", "--dataset", place / "broken.jsonl", "--rewards", "x,integer:y"]
    refused = run_script(*call, "--output-dir", place / "stuff", "--lora-rank", "0", "--seed", "-1", check=False)
    assert refused.stderr.count("error: ") == 7


def test_no_token_reaches_run_yaml_or_the_log(chain):
    """The tests run with a token in the environment, as people do."""
    run = chain / "short"
    texts = [path.read_text() for path in (run / "run.yaml", run / "metrics.jsonl", run / "samples.jsonl")]
    texts += [(chain / "train.log").read_text(), (run / "scores.json").read_text()]
    assert not any("hf_not_a_real_token" in text for text in texts)


def test_names_from_outside_stay_inside_the_run_folder(tmp_path):
    from kit.generation.artefacts import find_artefacts

    for name in ("x...gguf", "a.b c.gguf", "...gguf"):
        (tmp_path / name).write_bytes(b"")
        (artefact,) = find_artefacts([str(tmp_path / name)])
        assert artefact.name.strip(".")
        assert "/" not in artefact.name
    (tmp_path / "run").mkdir()
    once = find_artefacts([str(tmp_path / "x...gguf"), str(tmp_path / "run" / ".." / "x...gguf")])
    assert len(once) == 1
    (tmp_path / "run" / "x...gguf").write_bytes(b"")
    twice = find_artefacts([str(tmp_path / "x...gguf"), str(tmp_path / "run" / "x...gguf")])
    assert len({artefact.name for artefact in twice}) == 2
    assert not any("/" in artefact.name for artefact in twice)


def test_weights_are_safetensors_only(chain):
    """Optimizer and random states in checkpoints are torch's own; they are read with ``weights_only``."""
    pickles = [path for path in chain.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert {path.name for path in pickles} <= {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert all(path.parent.parent.name == "checkpoints" for path in pickles)
    assert json.loads((chain / "short" / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"
