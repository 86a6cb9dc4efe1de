"""How the scripts meet their users: help at once, one sentence and exit status 2 for a wrong call."""

import pytest

from tests.conftest import run_script

SCRIPTS = ("train_lora.py", "merge_and_export.py", "evaluate.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_none_of_the_heavy_libraries(script):
    heavy = ["torch", "transformers", "trl", "peft", "unsloth", "datasets", "vllm", "numpy"]
    block = f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); sys.argv = [{script!r}, '--help']"
    shown = run_script("-c", f"{block}; import runpy; runpy.run_path({script!r}, run_name='__main__')")
    assert "--" in shown.stdout
    assert script in shown.stdout


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["train_lora.py", "--num-generations", "1"], "--num-generations is 1"),
        (["train_lora.py", "--dataset", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["train_lora.py", "--rewards", "correctnes"], "there is no 'correctnes'"),
        (["merge_and_export.py", "demo"], "demo is no run folder"),
        (["evaluate.py", "demo"], "demo is no model"),
        (["evaluate.py", "runs/nowhere"], "runs/nowhere does not exist"),
        (["evaluate.py", "nowhere.gguf"], "nowhere.gguf does not exist"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_exit_status_2(call, words):
    refused = run_script(*call, check=False)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr
