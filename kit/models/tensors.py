"""Tensors of model folders, read one at a time, and what else belongs to an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kit.storage.hub import local_folder

if TYPE_CHECKING:
    import torch


class Tensors:
    """The tensors of a model folder's safetensors files by name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._files = [safe_open(file, "pt") for file in sorted(folder.glob("*.safetensors"))]
        self._file_of = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118 - no dict

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._file_of[name].get_tensor(name)


def embedding_rows(adapter: Path) -> int | None:
    """The rows of an embedding that an adapter brings whole, as tools do that added tokens; ``None`` without one."""
    tensors = Tensors(adapter)
    return next((len(tensors[name]) for name in tensors if name.endswith("embed_tokens.weight")), None)


def with_tokenizer(adapter: Path, base: str) -> Path:
    """The folder whose tokenizer goes with an adapter: its own, or where other tools saved none, its base's."""
    own = any((adapter / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"))
    return adapter if own else local_folder(base)
