"""vLLM that cannot be loaded: one sentence, and training or evaluation goes on; or an error, if it was required.

The card is a fake (this machine has none); Unsloth is the real one, which refuses fast inference on a processor.
"""

import subprocess
import sys

import pytest

from kit.storage.run_folder import read_jsonl
from tests.conftest import ROOT

LOAD = """
import sys
from kit.models import loading as model
from kit.planning.gpus import card_named
from kit.cli.errors import UserError
from kit.planning.model_shape import model_shape
from kit.planning.plan import make_plan
from kit.settings.knobs import Settings

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


EVALUATE = """
import sys
import evaluate
from kit.planning import hardware
from kit.planning.gpus import card_named
from kit.cli.errors import run_script

hardware.detect = lambda: card_named("rtx3060-12gb")
run_script(evaluate.main, "")
"""


@pytest.mark.parametrize("wish", ["auto", "require"])
def test_evaluation_goes_on_without_vllm(chain, tmp_path, wish):
    command = [chain / "short" / "adapter", "--baseline", chain / "base", "--dataset", chain / "data" / "heldout.jsonl"]
    options = ["--limit", "4", "--max-completion-length", "8", "--output-dir", tmp_path, "--vllm", wish]
    done = subprocess.run(
        [sys.executable, "-c", EVALUATE, *map(str, [*command, *options])],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "vLLM could not be loaded for adapter (No module named 'vllm')" in done.stdout + done.stderr
    if wish == "require":
        assert done.returncode == 2
        return
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("could not be loaded") == 1  # and not once for each artefact
    for name in ("adapter", "base"):
        assert len(read_jsonl(tmp_path / "transcripts" / f"{name}.jsonl")) == 4
    assert "transformers" in (tmp_path / "scores.json").read_text(encoding="utf-8")
