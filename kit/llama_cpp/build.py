"""The one pinned llama.cpp: where it lies, and how it gets there.

    python -m kit.llama_cpp.build        builds it once, into the user's cache folder; later calls find it there

The source comes from the package index: the source distribution of llama-cpp-python carries the complete llama.cpp
tree. pip downloads it and checks the hash below; cmake builds the programs named in PROGRAMS. The finished folder
holds the source (Unsloth's exporter and the demo's tokenizer read from it) with the programs in its root, where
Unsloth looks for them. It is renamed into place when everything in it is done, so a folder that is there is whole.

Only the standard library is used: the GGUF half of the kit needs neither torch nor Unsloth.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.cli.errors import UserError, run_script

VERSION = "0.3.36"
SOURCE_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
PROGRAMS = ("llama-quantize", "llama-server", "llama-cli", "llama-perplexity", "llama-imatrix", "llama-batched-bench")
# What a folder of the user's own must have in it:
NEEDED_PROGRAMS = ("llama-quantize", "llama-server", "llama-cli", "llama-perplexity")
NEEDED_SOURCE = ("convert_hf_to_gguf.py", "gguf-py")
# What llama-quantize of that version writes, as it names them itself (a test compares).
GGUF_TYPES = (
    "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_k", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "q4_k",
    "q4_1", "q4_0", "q3_k_l", "q3_k_m", "q3_k_s", "q3_k", "q2_k", "q2_k_s", "q2_0", "q1_0", "iq4_xs", "iq4_nl",
    "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s", "tq2_0",
    "tq1_0", "mxfp4_moe",
)  # fmt: skip
BUILD_TOOLS = ("cmake==4.1.2", "ninja==1.13.0")  # from the package index, where the system has no cmake
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",  # each program stands alone and can be moved
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
)
STAMP_FILE = "onecard-build.json"


def cache_folder() -> Path:
    """Where things that every checkout shares are kept; it survives ``git clean``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onecard"


def llama_cpp_folder() -> Path:
    """The folder of the llama.cpp in use: the one that UNSLOTH_LLAMA_CPP_PATH names, else the pinned build."""
    named = os.environ.get("UNSLOTH_LLAMA_CPP_PATH")
    return Path(named).expanduser().resolve() if named else cache_folder() / f"llama.cpp-{VERSION}"


def is_ready() -> bool:
    """Is there a llama.cpp to use? A folder that the user named counts when it has the programs that we call."""
    folder = llama_cpp_folder()
    if "UNSLOTH_LLAMA_CPP_PATH" in os.environ:
        has_programs = all(os.access(folder / name, os.X_OK) for name in NEEDED_PROGRAMS)
        return has_programs and all((folder / name).exists() for name in NEEDED_SOURCE)
    try:
        return json.loads((folder / STAMP_FILE).read_text(encoding="utf-8")) == _stamp()
    except (OSError, ValueError):
        return False


def program(name: str) -> Path:
    """The path of one llama.cpp program.

    Raises:
        UserError: it has not been built.
    """
    path = llama_cpp_folder() / name
    if not os.access(path, os.X_OK):
        raise UserError(f"{name} is not in {path.parent}: build llama.cpp with `python -m kit.llama_cpp.build`")
    return path


def ensure() -> Path:
    """Build llama.cpp unless it is there, and return its folder.

    Raises:
        UserError: the download or the build failed, or the folder that the user named is incomplete.
    """
    folder = llama_cpp_folder()
    if is_ready():
        return folder
    if "UNSLOTH_LLAMA_CPP_PATH" in os.environ:
        raise UserError(
            f"UNSLOTH_LLAMA_CPP_PATH names {folder}, which lacks some of "
            f"{', '.join(NEEDED_PROGRAMS + NEEDED_SOURCE)} in its root: put them there, or "
            "unset the variable to have the pinned llama.cpp built"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _only_one_builder(folder.with_suffix(".lock")):
        if not is_ready():
            _build_into(folder)
    return folder


def _stamp() -> dict[str, object]:
    return {"source": f"llama-cpp-python {VERSION}", "sha256": SOURCE_SHA256, "programs": list(PROGRAMS)}


@contextmanager
def _only_one_builder(lock: Path) -> Iterator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
        yield


def _build_into(folder: Path) -> None:
    """Download, build and move into place. What an interrupted build left behind is removed first."""
    for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.partial-", dir=folder.parent) as scratch:
        print(f"llama.cpp: downloading the source (77 MB) of llama-cpp-python {VERSION}", flush=True)
        source = _download_source(Path(scratch))
        print(f"llama.cpp: building {len(PROGRAMS)} programs, 4 to 10 minutes on two cores", flush=True)
        _compile(source)
        for name in PROGRAMS:
            shutil.move(source / "build" / "bin" / name, source / name)
        shutil.rmtree(source / "build")
        (source / STAMP_FILE).write_text(json.dumps(_stamp()), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        source.rename(folder)
    print(f"llama.cpp: ready in {folder}", flush=True)


def _download_source(scratch: Path) -> Path:
    """Fetch the pinned source distribution with pip, which checks its hash, and unpack the llama.cpp tree in it."""
    wanted = scratch / "source.txt"
    wanted.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SOURCE_SHA256}\n", encoding="utf-8")
    _run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python"),
            *("--require-hashes", "--dest", str(scratch), "--requirement", str(wanted)),
        ],
        remedy="check the network connection to the package index and run the same command again",
    )
    (archive,) = scratch.glob("*.tar.gz")
    prefix = f"{archive.name.removesuffix('.tar.gz')}/vendor/llama.cpp/"
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.name.startswith(prefix)]
        tar.extractall(scratch, members, filter="data")
    return scratch / prefix


def _compile(source: Path) -> None:
    tools = _build_tools()
    generator = ["-G", "Ninja"] if shutil.which("ninja", path=tools) else []
    environment = {**os.environ, "PATH": tools}
    build = ["cmake", "--build", "build", "--config", "Release", "--parallel", str(os.cpu_count() or 2), "--target"]
    remedy = "a C++ compiler is needed (Debian and Ubuntu: apt install build-essential)"
    _run(["cmake", *generator, "-B", "build", *CMAKE_OPTIONS], remedy=remedy, cwd=source, env=environment)
    _run([*build, *PROGRAMS], remedy=remedy, cwd=source, env=environment)


def _build_tools() -> str:
    """The PATH that has cmake; installed beside this interpreter where the system has none."""
    beside = str(Path(sys.executable).parent)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), beside])
    if shutil.which("cmake", path=path) is None:
        print("llama.cpp: no cmake on this system, installing it from the package index (30 MB)", flush=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *BUILD_TOOLS]
        _run(install, remedy="install cmake and run the same command again")
    return path


def _run(command: list[str], remedy: str, **options) -> None:
    """Run a step quietly (its progress line excepted); when it fails, show the end of what it printed."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if line.startswith("[") and sys.stdout.isatty():  # ninja's and make's "[12/226] Building …"
                print(f"\r\x1b[K{line.strip()[:100]}", end="", flush=True)
        if sys.stdout.isatty():
            print("\r\x1b[K", end="")
        if process.wait() != 0:
            log.seek(0)
            print(*log.readlines()[-30:], sep="", file=sys.stderr)
            raise UserError(f"`{' '.join(command[:4])} …` failed, its last lines are above: {remedy}")


def main() -> None:
    """Build it, or say where it is."""
    print(f"llama.cpp: {ensure()}")


if __name__ == "__main__":
    run_script(main)
