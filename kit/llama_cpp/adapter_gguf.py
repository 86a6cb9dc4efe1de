"""A LoRA adapter as a GGUF file of its own, for llama.cpp to put onto a GGUF of the base: made, and looked into."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.errors import UserError
from kit.llama_cpp.gguf import GgufFile
from kit.llama_cpp.running import converter, output_of
from kit.storage.weight_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    import numpy as np


def convert_adapter(adapter: Path, base: Path, file: Path, name: str) -> None:
    """Write a PEFT adapter as one GGUF.

    In float32: it is small beside its base, and after a short training many of its numbers are so small that float16
    has few digits left for them. The converter sees PEFT's two files alone: from the model card that PEFT writes beside
    them it would take the base's path on this machine into the file.

    Args:
        adapter: PEFT's folder.
        base: a folder with its base's config.json and tokenizer.
        file: what is written.
        name: what it is called in its metadata, in the converter's spelling.

    Raises:
        UserError: the converter failed.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        for part in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            (folder / part).symlink_to((adapter / part).resolve())
        command = [*converter("convert_lora_to_gguf.py"), str(folder), "--base", str(base)]
        output_of([*command, "--outtype", "f32", "--outfile", str(file)])


def is_adapter_gguf(file: Path) -> bool:
    """Is this GGUF an adapter, by what it says of itself? What cannot be read is none."""
    try:
        return GgufFile(file).value("general.type") == "adapter"
    except UserError:
        return False


class AdapterGguf:
    """What an adapter's GGUF adds to its base's matrices, as llama.cpp reckons it.

    Args:
        file: the adapter's GGUF.
        base: a GGUF of the base, which knows what the matrices are called.
    """

    def __init__(self, file: Path, base: GgufFile) -> None:
        self._file, self._base = GgufFile(file), base

    @cached_property
    def _tensors(self) -> dict[str, np.ndarray]:
        return {name: self._file.values(name) for name in self._file.names}

    @property
    def _alpha(self) -> Any:
        return self._file.value("adapter.lora.alpha")

    def change(self, name: str) -> np.ndarray | None:
        """What is added to a matrix, by its Hugging Face name; rows in the GGUF's order. ``None``: nothing."""
        try:
            inside = self._base.name_of(name)
        except KeyError:
            return None
        first, second = (self._tensors.get(f"{inside}.lora_{factor}") for factor in "ab")
        if first is None or second is None:
            return None
        return (second @ first) * (self._alpha / second.shape[1])  # llama_adapter_lora_weight::get_scale
