"""An adapter and its base, tensor by tensor: PEFT merges each module, without holding the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.errors import UserError, first_line
from kit.models.adapter_fit import check_fits
from kit.models.tensors import Tensors, embedding_rows
from kit.storage.hub import folder_here, local_folder

if TYPE_CHECKING:
    import torch

PEFT_ERRORS = (RuntimeError, ValueError, LookupError, TypeError)  # in which it says what does not fit
PREFIX = "base_model.model."  # of the base's names in an adapter's file


def check_goes_with(adapter: Path, base: str) -> None:
    """Refuse an adapter of which an engine would leave out a part without a word, before it loads anything; on a base
    that is yet to be fetched none is looked at.

    Raises:
        UserError: a part of the adapter has no place in the base, or is lacking, or PEFT does not take it.
    """
    if folder_here(base) is None:
        return
    try:
        _adapted_skeleton(adapter, base)
    except PEFT_ERRORS as error:
        raise UserError(f"{adapter} does not go with {base}, PEFT says: {first_line(error)}") from error


def merged_tensors(adapter: Path, base: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor | None]]:
    """(name, the base's tensor, what merging makes of it in float32 or None where it is left alone), tensor by tensor.

    The base is a skeleton without weights. Each module that the adapter reaches gets its own for as long as PEFT merges
    it, so that every kind of adapter that PEFT knows is merged by PEFT. A tensor that the adapter brings whole, such as
    an embedding with rows for added tokens, takes the place of the base's.

    Raises:
        UserError: a part of the adapter has no place in the base, or is lacking.
        RuntimeError: and others of PEFT's own, where the adapter does not fit the base.
    """
    import torch

    theirs, brought = Tensors(local_folder(base)), Tensors(adapter)
    skeleton, adapted = _adapted_skeleton(adapter, base)
    embedding = _name_of(skeleton, skeleton.get_input_embeddings())
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


def _adapted_skeleton(adapter: Path, base: str) -> tuple[Any, Any]:
    """The base without its weights, and PEFT's model of it with the adapter."""
    from peft import PeftModel

    skeleton = _skeleton(base, embedding_rows(adapter))
    adapted = PeftModel.from_pretrained(skeleton, str(adapter), low_cpu_mem_usage=True, torch_device="cpu")
    check_fits(adapted, adapter, base)
    return skeleton, adapted


def _skeleton(base: str, rows: int | None) -> Any:
    """The base's modules without its weights: each parameter is one number seen as many, which takes no memory."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(local_folder(base)), **({"vocab_size": rows} if rows else {}))
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
