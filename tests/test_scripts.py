"""How the scripts meet their users: help at once, one sentence and exit status 2 for a wrong call."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT, run_script

SCRIPTS = ("train_lora.py", "merge_and_export.py", "evaluate.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_needs_none_of_the_heavy_libraries(script):
    heavy = ["torch", "transformers", "trl", "peft", "unsloth", "datasets", "vllm", "numpy"]
    block = f"import sys; sys.modules.update(dict.fromkeys({heavy!r})); sys.argv = [{script!r}, '--help']"
    shown = run_script("-c", f"{block}; import runpy; runpy.run_path({script!r}, run_name='__main__')")
    assert "--" in shown.stdout
    assert script in shown.stdout


@pytest.mark.parametrize("script", [*SCRIPTS, "rewards.py"])
def test_a_python_without_the_packages_is_told_which_has_them(script):
    command = [sys.executable, "-S", script, "--help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (said.returncode, "Traceback" in said.stderr) == (2, False)
    assert "write .venv/bin/python for python" in said.stderr


def test_a_reader_that_has_seen_enough_is_no_error():
    """As `| head -1` leaves."""
    command = [sys.executable, "train_lora.py", "--plan", "--gpu", "t4"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.stdout.close()
    assert "Traceback" not in running.stderr.read()
    assert running.wait() == 141
