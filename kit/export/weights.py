"""Weights for making and checking an export: tensor by tensor, or a whole model in float32.

With transformers and PEFT as they come, not as Unsloth patches them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.planning.hardware import free_card, free_memory_bytes
from kit.storage.hub import local_folder, weights_bytes

if TYPE_CHECKING:
    import torch

_ROOM = 1.5  # of a model's own size: what a pass over a reply, and reading the file, take besides


def no_room_for(base: str) -> str:
    """Why this machine cannot hold the model in float32, as a sentence; empty where it can."""
    needed, free = 2 * _ROOM * weights_bytes(base), free_memory_bytes()
    if needed <= free:
        return ""
    return f"not looked at: it takes {needed / 1e9:.1f} GB of memory in float32, {free / 1e9:.1f} are free"


def load_model(path: Path | str) -> Any:
    """A model in float32, on the card if there is one with room for it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32).eval()
    free_card()
    fits = torch.cuda.is_available() and _ROOM * model.get_memory_footprint() < torch.cuda.mem_get_info()[0]
    return model.to("cuda") if fits else model


def with_tokenizer(adapter: Path, base: str) -> Path:
    """The folder whose tokenizer goes with an adapter: its own, or where other tools saved none, its base's."""
    own = any((adapter / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"))
    return adapter if own else local_folder(base)


def load_tokenizer(path: Path | str) -> Any:
    """The tokenizer of a folder or Hub id; loaded once while its files stay as they are: it takes a second or two."""
    files = sorted(Path(path).glob("*.j*")) if Path(path).is_dir() else []
    return _load_tokenizer(str(path), tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=4)
def _load_tokenizer(path: str, _: tuple[int, ...]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


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


def next_token(model: Any, ids: list[int], last: int) -> torch.Tensor:
    """Log-probabilities of what comes at each of the ``last`` positions of ``ids``; shape (last, vocabulary)."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([ids], device=model.device), logits_to_keep=last + 1).logits
    return logits[0, -last - 1 : -1].float().log_softmax(-1).cpu()
