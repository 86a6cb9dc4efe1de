"""vLLM that cannot be loaded: one sentence, and training goes on; or an error, if it was required.

The card is a fake (this machine has none); Unsloth is the real one, which refuses fast inference on a processor.
"""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

LOAD = """
import sys
from kit import model
from kit.cards import card_named
from kit.errors import UserError
from kit.model_shape import model_shape
from kit.plan import make_plan
from kit.settings import Settings

settings = Settings(model=sys.argv[1], vllm=sys.argv[2])
plan = make_plan(settings, card_named("t4"), model_shape(settings.model))
assert plan.choice.use_vllm
try:
    policy, tokenizer, now = model.load_for_training(plan)
    assert now.settings.completions_per_step == plan.settings.completions_per_step
    assert not {part.name for part in now.parts} & {"vLLM's CUDA graphs"}
    print("LOADED", now.choice.use_vllm, policy.peft_config["default"].r)
except UserError as error:
    print("REFUSED", error)
"""


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("auto", ["vLLM could not be loaded (", "Unsloth generates the rollouts itself", "requirements-t4.txt",
                  "LOADED False 32"]),
        ("require", ["REFUSED vLLM could not be loaded (", "--vllm auto goes on without it"]),
    ],
)  # fmt: skip
def test_vllm_that_cannot_be_loaded(chain, wish, words):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, chain / "base", wish], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for word in words:
        assert word in done.stdout
