"""Run a program of llama.cpp to its end, and say why it failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit.cli.errors import UserError
from kit.llama_cpp.build import llama_cpp_folder


def converter(script: str = "convert_hf_to_gguf.py") -> list[str]:
    """The beginning of a command: this interpreter and one of llama.cpp's converters."""
    return [sys.executable, str(llama_cpp_folder() / script)]


TOO_SHORT = "you need at least"  # what programs that measure on a text say of one with too few tokens


def output_of(command: list[str], folder: Path | None = None, unless: str = "") -> str:
    """Run a program of llama.cpp, in ``folder`` where that matters, and return what it printed.

    Raises:
        UserError: it failed, and did not print ``unless``; the end of what it printed is in the message.
    """
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=folder
    )
    if done.returncode and not (unless and unless in done.stdout):
        name = Path(command[1] if command[0] == sys.executable else command[0]).name
        raise UserError(f"{name} failed. Its last lines:\n" + "\n".join(done.stdout.splitlines()[-5:]))
    return done.stdout
