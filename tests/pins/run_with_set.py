"""Run CPU tests with a GPU set's versions of the packages that the two share: transformers, TRL, PEFT, datasets …

Those that train, merge, export or evaluate; the others never meet these packages.

    python -m tests.pins.run_with_set requirements-t4.txt [pytest options]

The versions that differ from ``.venv`` are put into a folder of their own that comes first on the path. torch stays the
processor's build. Where nothing differs, there is nothing to run: ``make test`` has tested these versions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.conftest import ROOT
from tests.pins.published import pins

_SHARED = {
    "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "huggingface-hub", "safetensors",
    "unsloth", "unsloth-zoo", "bitsandbytes",
}  # fmt: skip


_MEET_THEM = (
    "test_chain.py", "export", "evaluation/test_evaluation.py", "training/test_preflight.py",
    "generation/test_generation_settings.py", "models/test_vllm_fallback.py", "checkpointing/test_checkpoints.py",
    "task/test_user_rewards.py", "training/test_finishing.py",
)  # fmt: skip


def differing(lock: str) -> list[str]:
    """The lines of a lock for packages that ``.venv`` has in another version."""
    found = []
    for line in pins(lock, f"{sys.version_info.major}.{sys.version_info.minor}"):
        name, _, wanted = line.partition("==")
        if name in _SHARED and version(name) != wanted:
            found.append(line)
    return found


def main() -> None:
    lock, *options = sys.argv[1:]
    others = differing(lock)
    if not others:
        print(f"{lock}: the packages that it shares with .venv have the same versions; `make test` has tested them")
        return
    print(f"{lock}: {', '.join(others)}", flush=True)
    folder = ROOT / ".venv-pins" / Path(lock).stem
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *others], check=True)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    files = [f"tests/{path}" for path in _MEET_THEM]
    tests = [sys.executable, "-m", "pytest", "-m", "not slow and not pins", *files, *options]
    sys.exit(subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
