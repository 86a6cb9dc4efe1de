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
from typing import TYPE_CHECKING, Any

from kit.export.weights import Tensors, embedding_rows, with_tokenizer
from kit.storage.generation_settings import write_greedy
from kit.storage.hub import local_folder

if TYPE_CHECKING:
    import torch

PREFIX = "base_model.model."  # of the base's names in an adapter's file
_SHARD_BYTES = 2e9


def write_merged(adapter: Path, base: str, folder: Path) -> None:
    """Merge an adapter into its base; writes weights, configuration and the adapter's tokenizer into a new folder.

    Raises:
        RuntimeError: and others of PEFT's own, where the adapter does not fit the base.
    """
    from transformers import AutoTokenizer

    folder.mkdir(parents=True)
    source = json.loads((local_folder(base) / "config.json").read_text(encoding="utf-8"))
    is_tied, own_head = source.get("tie_word_embeddings"), False

    def written() -> Iterator[tuple[str, torch.Tensor]]:
        nonlocal own_head
        for name, original, expected in merged_tensors(adapter, base):
            if name == "lm_head.weight" and is_tied:
                if expected is None:  # the embedding once more: some bases write it down
                    continue
                own_head = True
            yield name, original if expected is None else expected

    _write_weights(written(), _number_type(base), folder)
    if (file := local_folder(base) / "generation_config.json").is_file():
        shutil.copyfile(file, folder / file.name)
    tokenizer = AutoTokenizer.from_pretrained(str(with_tokenizer(adapter, base)))
    config = source | {"pad_token_id": tokenizer.pad_token_id}  # the base's own may have been mended
    config |= {"tie_word_embeddings": False} if own_head else {}
    config |= {"vocab_size": rows} if (rows := embedding_rows(adapter)) else {}
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    write_greedy(folder, tokenizer.pad_token_id)


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


def merged_tensors(adapter: Path, base: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor | None]]:
    """(name, the base's tensor, what merging makes of it in float32 or None where it is left alone), tensor by tensor.

    The base is a skeleton without weights. Each module that the adapter reaches gets its own for as long as PEFT merges
    it, so that every kind of adapter that PEFT knows is merged by PEFT. A tensor that the adapter brings whole, such as
    an embedding with rows for added tokens, takes the place of the base's.

    Raises:
        RuntimeError: and others of PEFT's own, where the adapter does not fit the base.
    """
    import torch
    from peft import PeftModel

    theirs, brought = Tensors(local_folder(base)), Tensors(adapter)
    skeleton = _skeleton(base, embedding_rows(adapter))
    embedding = _name_of(skeleton, skeleton.get_input_embeddings())
    adapted = PeftModel.from_pretrained(skeleton, str(adapter), low_cpu_mem_usage=True, torch_device="cpu")
    reached = set()
    for path, module in _adapted_modules(adapted.base_model.model):
        plain = getattr(module, "original_module", None)
        plain = module.get_base_layer() if plain is None else plain
        originals = {}
        for name, parameter in list(plain.named_parameters(recurse=False)):
            source = f"{path}.{name}"
            originals[name] = theirs[source if source in theirs else f"{embedding}.{name}"]  # a tied head
            trained = originals[name].float() if _is_placeholder(parameter) else parameter.data  # a trained bias
            setattr(plain, name, torch.nn.Parameter(trained.clone(), requires_grad=False))
        for name, parameter in _merged(module).named_parameters(recurse=False):
            reached.add(f"{path}.{name}")
            yield f"{path}.{name}", originals[name], parameter.data.float()
        for name, original in originals.items():
            setattr(plain, name, torch.nn.Parameter(_placeholder(original.shape), requires_grad=False))
    for name in theirs:
        if name not in reached:
            whole = brought[f"{PREFIX}{name}"] if f"{PREFIX}{name}" in brought else theirs[name]
            is_bases = torch.equal(whole.to(theirs[name].dtype), theirs[name])
            yield name, theirs[name], None if is_bases else whole.float()


def _skeleton(base: str, rows: int | None) -> Any:
    """The base's modules without its weights: each parameter is one number seen as many, which takes no memory."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base, **({"vocab_size": rows} if rows else {}))
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, torch.nn.Parameter(_placeholder(parameter.shape), requires_grad=False))
    return model


def _placeholder(shape: torch.Size) -> torch.Tensor:
    import torch

    return torch.zeros(()).expand(shape)


def _is_placeholder(parameter: torch.Tensor) -> bool:
    return not any(parameter.stride())


def _name_of(model: Any, wanted: Any) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)


def _adapted_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """(path, module) of what PEFT put in place of the base's modules, the outermost of each."""
    found: list[str] = []
    for path, module in model.named_modules():
        is_adapted = hasattr(module, "unload_and_optionally_merge_module") or hasattr(module, "base_layer")
        if is_adapted and not any(path.startswith(f"{outer}.") for outer in found):
            found.append(path)
            yield path, module


def _merged(module: Any) -> Any:
    """The plain module that PEFT's own merging makes of an adapted one."""
    if hasattr(module, "unload_and_optionally_merge_module"):
        return module.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    module.merge(safe_merge=False)
    return module.get_base_layer()
