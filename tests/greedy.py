"""What every engine promises: a folder's own generation settings change no reply."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from kit.llama_cpp.build import llama_cpp_folder
from tests.gpu.agreement import replies

# As published with Qwen2.5-0.5B-Instruct, and two more that would show at once.
PUBLISHED = {
    "do_sample": True, "repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20,
    "no_repeat_ngram_size": 2, "min_new_tokens": 40,
}  # fmt: skip


def copy_that_asks_for_penalties(model: Path, folder: Path) -> Path:
    """A copy of a model folder whose generation settings ask for all that engines could take for a default."""
    shutil.copytree(model, folder)
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | PUBLISHED
    file.write_text(json.dumps(settings), encoding="utf-8")
    return folder


def as_gguf(model: Path, file: Path) -> Path:
    """A model folder as anybody's converter writes it: with the folder's settings in its metadata."""
    converter = llama_cpp_folder() / "convert_hf_to_gguf.py"
    subprocess.run([sys.executable, converter, model, "--outtype", "f16", "--outfile", file], check=True)
    return file


def assert_the_same_replies(one: Path, other: Path, data: Path, engine: str, questions: int = 8) -> None:
    first, second = (replies(str(path), str(data), engine, questions, max_tokens=40) for path in (one, other))
    assert first == second
    assert len(set(first)) > 1
