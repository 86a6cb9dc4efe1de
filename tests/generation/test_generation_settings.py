"""One meaning of greedy: replies follow from what the kit passes, whatever the model's folder asks for."""

import json

import pytest

from kit.llama_cpp.gguf import GgufFile, convert
from kit.storage.generation_settings import GREEDY_METADATA, shapes_replies
from tests.conftest import run_script, short_training
from tests.greedy import PUBLISHED, as_gguf, assert_the_same_replies, copy_that_asks_for_penalties


@pytest.fixture(scope="module")
def asking(chain, tmp_path_factory):
    return copy_that_asks_for_penalties(chain / "base", tmp_path_factory.mktemp("asking") / "model")


def test_transformers_answers_by_what_is_passed(chain, asking):
    assert_the_same_replies(chain / "base", asking, chain / "data" / "heldout.jsonl", "transformers")


def test_llama_cpp_answers_by_what_is_passed(chain, asking, tmp_path):
    quiet, loud = tmp_path / "quiet.gguf", as_gguf(asking, tmp_path / "loud.gguf")
    convert(chain / "base", quiet, "f16", "quiet")
    assert GgufFile(loud).value("general.sampling.penalty_repeat") == pytest.approx(1.1)  # else this shows nothing
    assert_the_same_replies(quiet, loud, chain / "data" / "heldout.jsonl", "llama.cpp")


def test_an_export_says_what_it_was_scored_with(chain, asking, tmp_path):
    merged = json.loads((chain / "short" / "merged" / "generation_config.json").read_text(encoding="utf-8"))
    assert shapes_replies(chain / "short" / "merged") == {}
    assert merged["eos_token_id"]
    assert set(shapes_replies(asking)) == set(PUBLISHED)
    gguf = GgufFile(chain / "short" / "gguf" / "short.q8_0.gguf")
    assert {name: gguf.value(name) for name in GREEDY_METADATA} == GREEDY_METADATA
    loud = tmp_path / "loud.gguf"
    convert(asking, loud, "f16", "loud")
    assert {name: GgufFile(loud).value(name) for name in GREEDY_METADATA} == GREEDY_METADATA


def test_rollouts_without_vllm_follow_what_is_passed(chain, asking, tmp_path):
    """A step on each folder: the same completions, drawn with the same seed."""
    samples = []
    for name, model in (("quiet", chain / "base"), ("loud", asking)):
        run_script(*short_training(chain, tmp_path / name, "--model", model, "--max-steps", "1"))
        samples.append((tmp_path / name / "samples.jsonl").read_text(encoding="utf-8"))
    assert samples[0] == samples[1]
