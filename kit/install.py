"""``make setup``: the pinned packages in .venv, llama.cpp and the Qwen2 tokenizer. Safe to run again and again.

    python3 -m kit.install [--torch-index URL]

Each step is skipped when its result is there and says what it does, how much it downloads and about how long it
takes. A step leaves its stamp last, so one that was interrupted is done again. Standard library only: this runs before
anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import venv
from pathlib import Path

from kit.cli.errors import UserError, run_script

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = (ROOT / "requirements-cpu.txt", ROOT / "requirements-dev.txt")
STAMP = VENV / "onecard-install.json"
PYTHON = VENV / "bin" / "python"
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
_LITTLE = "packages: downloading about 500 MB (torch's CPU build and some 120 others), 2.1 GB on disk, 1 to 3 minutes"
_MUCH = (
    "packages: your package index serves torch's CUDA build, with which 3 GB of CUDA libraries come: downloading about "
    "3.5 GB. A processor needs 500 MB of it: to fetch no more, stop with Ctrl-C and name torch's CPU index (the "
    "address that pytorch.org shows under 'Get started' for Compute Platform CPU): make setup TORCH_INDEX=ADDRESS"
)


def install_packages(torch_index: str) -> None:
    """Create .venv and install the locks into it, unless that has been done with just these locks.

    Raises:
        UserError: this Python is too old or too new, or pip failed.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise UserError(f"Python {sys.version.split()[0]} is too old: run `make setup PYTHON=python3.11` or newer")
    if sys.version_info[:2] > NEWEST_PYTHON:
        raise UserError(f"Python {sys.version.split()[0]} is too new: run `make setup PYTHON=python3.13`, 3.12 or 3.11")
    wanted = {
        "python": list(sys.version_info[:2]),
        "locks": [hashlib.sha256(lock.read_bytes()).hexdigest() for lock in LOCKS],
    }
    if _read(STAMP) == wanted and PYTHON.exists():
        return
    if VENV.is_symlink():
        raise UserError(f"{VENV.name} is a link, and what it leads to would be emptied: remove it (rm {VENV.name})")
    STAMP.unlink(missing_ok=True)
    venv.create(VENV, with_pip=True, clear=True)
    torch = next(line for line in LOCKS[0].read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))
    index = ["--index-url", torch_index] if torch_index else []
    with_cuda = _is_cuda_build(torch, index)
    print(_MUCH if with_cuda else _LITTLE, flush=True)
    _pip("install", "--quiet", "--no-deps", *index, torch)
    if with_cuda:  # it does not import without them
        _pip("install", "--quiet", "--constraint", str(LOCKS[0]), torch)
    for lock in LOCKS:
        _pip("install", "--quiet", "--no-deps", "--requirement", str(lock))
    STAMP.write_text(json.dumps(wanted), encoding="utf-8")
    print(f"packages: ready in {VENV.name}", flush=True)


def _is_cuda_build(requirement: str, index: list[str]) -> bool:
    """Would pip install torch's CUDA build? Asked of its metadata, before anything large is fetched."""
    asked = ["--dry-run", "--quiet", "--no-deps", "--report", "-", *index, requirement]
    command = [str(PYTHON), "-m", "pip", "install", *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        (torch,) = json.loads(done.stdout)["install"]
        needs = torch["metadata"].get("requires_dist", [])
    except (ValueError, KeyError, TypeError):  # the installation will say what is wrong
        return False
    return any(line.startswith(("nvidia-", "cuda-")) for line in needs)


def _pip(*arguments: str) -> None:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, check=False).returncode != 0:
        raise UserError(
            "pip could not install the packages, its message is above: mend that and run the same command again"
        )


def _read(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description="Install everything that the demo and the tests need into .venv.")
    parser.add_argument("--torch-index", default="", metavar="URL", help="take torch from this package index")
    args = parser.parse_args()
    install_packages(args.torch_index)
    for step in ("kit.llama_cpp.build", "demo.tokenizer"):
        if code := subprocess.run([str(PYTHON), "-m", step], cwd=ROOT, check=False).returncode:
            sys.exit(code)


if __name__ == "__main__":
    run_script(main)
