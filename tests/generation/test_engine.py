"""What every engine promises of a completion: its tokens, why it ended, and the model's own log-probabilities."""

import pytest

from kit.cli.errors import UserError
from kit.generation import vllm_on_processor
from kit.generation.artefacts import find_artefacts
from kit.generation.engine import Sampling
from kit.generation.open import open_engine
from kit.generation.runtime import Room, choose_runtime
from kit.planning.hardware import Machine
from kit.prompts import build_prompt

QUESTIONS = [
    "Ana has 3 apples and gets 4 more. How many now?",
    "9 + 9?",
    "Tom had 20 euros and spent 8. How much is left?",
]


def completions(path, sampling):
    (artefact,) = find_artefacts([str(path)])
    with open_engine(artefact, choose_runtime(artefact), Room(256, 64, batch_size=2)) as engine:
        batches = list(engine.generate([build_prompt(question) for question in QUESTIONS], sampling))
    return [reply for _, reply in sorted((pair for batch in batches for pair in batch), key=lambda pair: pair[0])]


def test_engines_say_the_same_tokens_and_log_probabilities(chain, base_gguf):
    """f16 activations move them by hundredths of a nat; greedy at another temperature would by tenths."""
    sampling = Sampling(64, logprobs=True)
    for one, other in zip(completions(chain / "base", sampling), completions(base_gguf, sampling), strict=True):
        assert (one.text, one.tokens, one.finish_reason) == (other.text, other.tokens, other.finish_reason)
        assert len(one.token_ids) == len(one.logprobs) > 4
        shared = min(len(one.token_ids), len(other.token_ids))  # whether the last one is told, engines differ
        assert one.token_ids[:shared] == other.token_ids[:shared]
        assert one.logprobs[:shared] == pytest.approx(other.logprobs[:shared], abs=0.05)


@pytest.mark.parametrize("engine", ["transformers", "llama.cpp"])
def test_a_reply_is_cut_off_where_sampling_says(chain, base_gguf, engine):
    replies = completions(base_gguf if engine == "llama.cpp" else chain / "base", Sampling(3, temperature=1.0, seed=5))
    assert [(reply.tokens, reply.finish_reason, reply.token_ids) for reply in replies] == [(3, "length", ())] * 3


def test_an_engine_that_does_not_fit_is_not_loaded(chain, monkeypatch):
    monkeypatch.setattr(vllm_on_processor, "detect", lambda: Machine(card=None, free_gib=1.0))
    with pytest.raises(UserError, match=r"it needs \d\.\d GiB and 1\.0 are free; --dtype bfloat16 takes less"):
        vllm_on_processor.kept(str(chain / "base"), "float32", 256, 512)


def test_the_number_type_is_the_users_to_choose(chain, base_gguf):
    said = {}
    for path in (chain / "base", chain / "short" / "adapter", base_gguf):
        (artefact,) = find_artefacts([str(path)])
        said[path] = choose_runtime(artefact, vllm="off", dtype="bfloat16").precision
    assert list(said.values()) == ["bfloat16", "bfloat16, 16-bit base", "f16 GGUF"]
