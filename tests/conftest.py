"""What the tests share: one short, real run of the whole chain, made once in a session."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
collect_ignore = ["gpu/imitation", "generation/older_processor"]  # for processes that ask for it, by PYTHONPATH

settings.register_profile("onecard", deadline=None)  # a busy machine is no failure
settings.load_profile("onecard")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_TOKEN"] = "hf_not_a_real_token"


def run_script(*arguments: object, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    """Run one of the kit's scripts with this interpreter, as a user would, and return what it printed."""
    command = [sys.executable, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)
    assert not check or done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def killed_once(condition: Callable[[], bool], *arguments: object) -> None:
    """Run one of the kit's scripts until ``condition`` holds, which must be before it ends, and kill it."""
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would fill
        process = subprocess.Popen(list(map(str, (sys.executable, *arguments))), cwd=ROOT, stdout=said, stderr=said)
        while not condition():
            time.sleep(0.01)
            if process.poll() is not None:
                said.seek(0)
                pytest.fail(f"it ended before it could be killed: {said.read()[-3000:]}")
        process.kill()
        assert process.wait() == -signal.SIGKILL


def short_training(chain: Path, run: object, *options: object) -> list[object]:
    """What starts a training as short as tests/short.yaml says, of the chain's base; of options the last counts."""
    return [
        "train_lora.py", "--config", "tests/short.yaml", "--model", chain / "base",
        "--dataset", chain / "data" / "train.jsonl", "--output-dir", run, *options,
    ]  # fmt: skip


_WRITES = """
import sys, time
from pathlib import Path
from kit.storage import run_lock

run_lock.take(Path(sys.argv[1]))
print("taken", flush=True)
time.sleep(600)
"""


def writing(run: Path) -> subprocess.Popen[str]:
    """Another program that keeps a run folder for itself until it is killed."""
    other = subprocess.Popen([sys.executable, "-c", _WRITES, run], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "taken\n"
    return other


@pytest.fixture(scope="session")
def chain(tmp_path_factory) -> Path:
    """A folder with the run folder ``short`` of a tiny, hardly trained model: train, merge, export, evaluate.

    Where several processes test, the first that asks makes it, and each has a copy to itself, whose run goes on naming
    the base that was made (in ``chain-as-made``).
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with FileLock(shared / "chain.lock"):
        if not (shared / "chain.made").exists():
            shutil.rmtree(shared / "chain-as-made", ignore_errors=True)  # what a failure left
            _make_chain(shared / "chain-as-made")
            (shared / "chain.made").touch()
    return shutil.copytree(shared / "chain-as-made", own / "chain")


@pytest.fixture(scope="session")
def base_gguf(chain, tmp_path_factory) -> Path:
    """An f16 GGUF of the chain's base."""
    from kit.llama_cpp.gguf import convert

    file = tmp_path_factory.mktemp("base") / "base.f16.gguf"
    convert(chain / "base", file, "f16", "base")
    return file


def _make_chain(folder: Path) -> None:
    run_script("-m", "demo.base", folder / "base", "--steps", "200")
    run_script("-m", "demo.problems", folder / "data")
    trained = run_script(*short_training(folder, folder / "short", "--max-steps", "3"))
    (folder / "train.log").write_text(trained.stdout + trained.stderr, encoding="utf-8")
    run_script("merge_and_export.py", folder / "short", "--gguf", "f16", "q8_0")
    run_script("evaluate.py", folder / "short", "--dataset", folder / "data" / "heldout.jsonl", "--limit", "50")
