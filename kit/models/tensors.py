"""Tensors of model folders, read one at a time, and what else belongs to an adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kit.cli.errors import UserError, first_line
from kit.storage.hub import folder_here, local_folder
from kit.storage.weight_files import ADAPTER_CONFIG, tensor_files

if TYPE_CHECKING:
    import torch

_FACTORS = (".lora_A.weight", ".lora_B.weight")


class Tensors:
    """The tensors of a model's or an adapter's safetensors files by name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self._files = [safe_open(file, "pt") for file in tensor_files(folder)]
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


def beyond_lora(adapter: Path, unknown: Mapping[str, str]) -> list[str]:
    """What an engine that knows LoRA's factors, and one scale for all, would drop of an adapter or take otherwise.

    Args:
        adapter: its folder.
        unknown: what the engine does not read of adapter_config.json, and what that does.

    Returns:
        Ends of sentences that begin with the adapter; none where the engine holds all of it.
    """
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        return [f"is {config.get('peft_type')} and no LoRA"]
    found = [says for key, says in unknown.items() if config.get(key)]
    others = [name for name in Tensors(adapter) if not name.endswith(_FACTORS)]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        found.append(f"holds {others[0]}{more} besides LoRA's factors (as DoRA, trained biases and embeddings do)")
    return found


def is_tied(model: Path | str) -> bool:
    """Is a model's output head its embedding? As transformers understands its config.json, which may not say so.

    Raises:
        UserError: there is none, or none that transformers knows.
    """
    from transformers import AutoConfig

    try:  # of the copy here, where there is one: asked for a Hub id, the Hub may put a newer commit in its place
        config = AutoConfig.from_pretrained(folder_here(str(model)) or str(model))
    except (OSError, ValueError) as error:
        raise UserError(f"{model}: its config.json cannot be had or read ({first_line(error)})") from None
    return bool(config.get_text_config().tie_word_embeddings)


def changes_head(adapter: Path) -> bool:
    """Does an adapter change the output head?"""
    return any("lm_head" in name for name in Tensors(adapter))


def with_tokenizer(adapter: Path, base: str) -> Path:
    """The folder whose tokenizer goes with an adapter: its own, or where other tools saved none, its base's."""
    own = any((adapter / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"))
    return adapter if own else local_folder(base)
