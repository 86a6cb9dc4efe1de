"""MERGE: adapter and base become 16-bit weights, a module at a time, so that a 7B model needs no 28 GB.

PEFT itself merges each module, in float32, so every kind of adapter that it knows is merged as it means it. The sum is
stored in float16. Stored in bfloat16, as bases are published, it would lose what a short run has learned: the change is
smaller than that type's steps. (Qwen2.5-Coder-0.5B after five steps, 40 questions answered greedily in float32: in
bfloat16 64 % of the change is left and 13 replies are the adapter's, in float16 99.7 % and 40.) config.json goes on
naming the base's number type, in which transformers and vLLM compute unless they are told otherwise.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kit.chat_templates import keep_default_template
from kit.models.base_check import mend_padding
from kit.models.merged_tensors import merged_tensors
from kit.models.sentencepiece_file import keep_sentencepiece_file
from kit.models.tensors import Tensors, embedding_rows, is_tied, with_tokenizer
from kit.storage.generation_settings import as_ends, ends_of_turn, write_greedy
from kit.storage.hub import local_folder

if TYPE_CHECKING:
    import torch

_SHARD_BYTES = 2e9


def write_merged(adapter: Path, base: str, folder: Path) -> None:
    """Merge an adapter into its base; writes weights, configuration and the adapter's tokenizer into a new folder.

    Raises:
        RuntimeError: and others of PEFT's own, where the adapter does not fit the base.
    """
    from transformers import AutoTokenizer

    folder.mkdir(parents=True)
    source = json.loads((local_folder(base) / "config.json").read_text(encoding="utf-8"))
    head_is_embedding, own_head = is_tied(base), False

    def written() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal own_head
        for name, original, expected in merged_tensors(adapter, base):
            if name == "lm_head.weight" and head_is_embedding:
                if expected is None:  # the embedding once more: some bases write it down
                    continue
                own_head = True
            yield name, original if expected is None else expected

    _write_weights(written(), _number_type(base), folder)
    if (file := local_folder(base) / "generation_config.json").is_file():
        shutil.copyfile(file, folder / file.name)
    tokenizer = AutoTokenizer.from_pretrained(str(with_tokenizer(adapter, base)))
    if length := source.get("text_config", source).get("max_position_embeddings"):
        tokenizer.model_max_length = length  # other tools, and this kit before, keep the training's there
    keep_default_template(tokenizer)
    if tokenizer.pad_token in (None, tokenizer.eos_token):
        mend_padding(tokenizer, base)  # training has done so, other tools may not
    config = source | {"pad_token_id": tokenizer.pad_token_id}
    ends = ends_of_turn(folder) or as_ends(source.get("eos_token_id"))
    if tokenizer.eos_token_id not in (None, *ends):  # an adapter may have been taught another end than its base's
        ends = [tokenizer.eos_token_id, *ends]
        config["eos_token_id"] = ends
    config |= {"tie_word_embeddings": False} if own_head else {}
    config |= {"vocab_size": rows} if (rows := embedding_rows(adapter)) else {}
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    keep_sentencepiece_file((str(adapter), base), tokenizer, folder)
    write_greedy(folder, tokenizer.pad_token_id, ends)


def _number_type(base: str) -> torch.dtype:
    """float16, or the base's own type where a weight is too large for it."""
    import torch

    theirs = Tensors(local_folder(base))
    largest = torch.finfo(torch.float16).max
    too_large = next((tensor.dtype for name in theirs if (tensor := theirs[name]).abs().max() >= largest), None)
    return too_large or torch.float16


def _write_weights(tensors: Iterator[tuple[str, torch.Tensor]], dtype: torch.dtype, folder: Path) -> None:
    """Write safetensors files of at most 2 GB, and their index where there are several."""
    from safetensors.torch import save_file

    shards: list[list[str]] = []
    held: dict[str, torch.Tensor] = {}

    def flush() -> None:
        save_file(held, folder / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})
        shards.append(list(held))
        held.clear()

    for name, tensor in tensors:
        held[name] = tensor.to(dtype).contiguous()
        if sum(tensor.nbytes for tensor in held.values()) > _SHARD_BYTES:
            flush()
    if held:
        flush()
    _name(shards, folder)


def _name(shards: list[list[str]], folder: Path) -> None:
    """Give the files the names that transformers looks for."""
    if len(shards) == 1:
        (folder / "part-0.safetensors").rename(folder / "model.safetensors")
        return
    place: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        (folder / f"part-{number - 1}.safetensors").rename(folder / file)
        place |= dict.fromkeys(names, file)
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    index = json.dumps({"metadata": {"total_size": total}, "weight_map": place}, indent=2)
    (folder / "model.safetensors.index.json").write_text(index + "\n", encoding="utf-8")
