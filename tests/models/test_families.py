"""The whole chain on a tiny random model of each architecture in the recipes: two steps, merge, gate, GGUF, scores."""

import json
from itertools import takewhile

import pytest

from kit.storage.run_folder import RunFolder, read_jsonl
from tests.conftest import run_script
from tests.models.tiny_families import FAMILIES, make

pytestmark = pytest.mark.slow
QUESTIONS = 8


@pytest.fixture(scope="module", params=FAMILIES)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base = make(request.param, folder / "base")
    run_script("-m", "demo.problems", folder / "data")
    run = RunFolder(folder / request.param)
    run_script(
        "train_lora.py", "--config", "tests/short.yaml", "--model", base, "--max-steps", 2,
        "--dataset", folder / "data" / "train.jsonl", "--output-dir", run.path,
        "--rewards", "tests/gpu/rewards_for_noise.py:letters", "--learning-rate", 0.01,
    )  # fmt: skip
    run_script("merge_and_export.py", run.path, "--gguf", "f16", "q8_0")
    run_script("evaluate.py", run.path, "--dataset", folder / "data" / "heldout.jsonl", "--limit", QUESTIONS,
               "--max-completion-length", 16)  # fmt: skip
    return run


def test_every_artefact_is_scored_and_says_the_same(run):
    scores = json.loads(run.scores_file.read_text(encoding="utf-8"))
    assert [row["name"] for row in scores["rows"]] == ["base", "adapter", "merged", "f16", "q8_0"]
    replies = {name: [row["reply"] for row in read_jsonl(run.transcripts / f"{name}.jsonl")]
               for name in ("base", "adapter", "merged", "f16")}  # fmt: skip
    assert replies["base"] != replies["adapter"]
    assert not any("think>" in reply for row in replies.values() for reply in row)
    # What is rounded otherwise turns some replies of random weights, and a Llama's prompt has the date in it:
    # the artefacts of one adapter have more in common than any has with the base.
    for one, other in (("adapter", "merged"), ("merged", "f16")):
        assert _in_common(replies[one], replies[other]) > _in_common(replies[one], replies["base"])


def _in_common(some: list[str], others: list[str]) -> int:
    """How many characters their replies begin with in common, in all."""
    return sum(
        len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
        for one, other in zip(some, others, strict=True)
    )


def test_no_model_thinks_before_it_replies(run):
    """Qwen3 thinks unless it is told not to; the training, every engine and Ollama's file tell it so."""
    modelfile = run.modelfile.read_text(encoding="utf-8")
    if run.path.name != "qwen3":
        assert "<think>" not in modelfile
        return
    assert "<think>\n\n</think>\n\n{{ .Response }}" in modelfile
    assert "told not to" in run.settings_file.read_text(encoding="utf-8")
    from transformers import AutoTokenizer

    for folder in (run.adapter, run.merged):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False
        )
        assert text.endswith("<think>\n\n</think>\n\n")
