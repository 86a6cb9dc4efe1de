"""Is merged/ the base plus what was trained? Looked at tensor by tensor, then by what it says, then its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import first_line
from kit.gate import Check, Tensors, load_model, load_tokenizer, next_token, no_room_for
from kit.hub import local_folder

if TYPE_CHECKING:
    import torch

# A merge on a processor is the reference to the last place. A card adds up in another order, which moves a sum by some
# 1e-6 of the change (1e-3 with TF32), so of the entries that training changed so many may round to the neighbour:
MAY_ROUND_OTHERWISE = 0.02
# What float32 itself does to log-probabilities, in nats a token: seen, 2e-6 on Qwen2.5-Coder-0.5B.
FLOAT32_NOISE = 1e-3


def adapter_is_trained(adapter: Path) -> Check:
    """The adapter holds numbers and differs from zero: LoRA's B matrices start there, and B·A is what a merge adds."""
    import torch

    tensors = Tensors(adapter)
    finite = all(bool(torch.isfinite(tensors[name]).all()) for name in tensors)
    factors = {name: tensors[name].float() for name in tensors if "lora_B" in name or "lora_embedding_B" in name}
    largest = max((tensor.abs().max().item() for tensor in factors.values()), default=0.0)
    moved = sum(bool(tensor.any()) for tensor in factors.values())
    if not finite:
        says = "holds NaN or infinite weights: train again with a smaller --learning-rate"
    elif factors and not moved:
        says = "is zero everywhere, merging it gives the base again: train longer or with a larger --learning-rate"
    elif factors:
        says = f"{moved} of {len(factors)} matrices differ from zero, the largest weight is {largest:.2g}"
    else:
        says = "is no LoRA: whether it changes the base, merging it shows"
    passed = finite and bool(moved or not factors)
    return Check("adapter", "trained", passed, says, {"matrices": len(factors), "moved": moved})


@dataclass
class _Count:
    """Entries of merged/, counted."""

    tensors: int = 0
    trained: int = 0  # tensors that the adapter reaches
    changed: int = 0  # entries that differ from the base's once both are rounded
    elsewhere: int = 0  # entries that round to the neighbour of what they should be
    kept: float = 0.0  # (merged - base) projected on the change, summed over entries
    change: float = 0.0  # the change's square, summed


def weights_agree(merged: Path, adapter: Path, base: str) -> Check:
    """Each tensor of merged is round16(base + change) to the last place, the change as PEFT's own layers merge it.

    What training left alone is the base's bit for bit, nothing is missing, nothing extra. One module is held at a time.
    """
    ours, count, wrong = Tensors(merged), _Count(), []
    missing, extra = _names_that_differ(ours, Tensors(local_folder(base)), merged)
    try:
        for name, original, expected in _as_peft_merges(adapter, base):
            if name in ours and (fault := _fault(ours[name], original, expected, count)):
                wrong.append(f"{name} {fault}")
            elif name not in ours and expected is not None:
                missing.append(name)
                extra = [other for other in extra if other != name]
            extra = [other for other in extra if other != name]
    except (RuntimeError, ValueError, KeyError, TypeError) as error:  # PEFT's own words for what does not fit
        says = f"PEFT cannot put {adapter} on {base} ({first_line(error)}): it was trained on another base"
        return Check("merged", "weights", False, says, {})
    wrong += [f"{name} is missing" for name in missing] + [f"{name} is not in the base" for name in extra]
    kept = count.kept / count.change if count.change else 0.0
    numbers = {
        "tensors": count.tensors, "trained": count.trained, "changed_entries": count.changed,
        "rounded_otherwise": count.elsewhere, "change_kept_in_16_bits": round(kept, 4), "wrong": len(wrong),
    }  # fmt: skip
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        says = f"{wrong[0]}{more}: these are not the trained weights, run the same command again without --check"
    elif not count.changed:
        says = (
            "rounding to 16 bits leaves nothing of what was trained, merged is the base: train longer or with a larger "
            "--learning-rate"
        )
    else:
        says = (
            f"{count.trained} of {count.tensors} tensors are base + change to the last place, the others the base's; "
            f"16 bits keep {kept:.0%} of the change"
        )
    return Check("merged", "weights", not wrong and count.changed > 0, says, numbers)


def _names_that_differ(ours: Tensors, theirs: Tensors, merged: Path) -> tuple[list[str], list[str]]:
    """(names that merged lacks, names that only merged has); a tied output head may be written down or not."""
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    free = {"lm_head.weight"} if config.get("tie_word_embeddings") else set()
    missing = [name for name in theirs if name not in ours and name not in free]
    return missing, [name for name in ours if name not in theirs and name not in free]


def _fault(found: torch.Tensor, original: torch.Tensor, expected: torch.Tensor | None, count: _Count) -> str:
    """What is wrong with a tensor of merged, in words; counts its entries. ``expected`` is None: as the base's."""
    import torch

    count.tensors += 1
    before = original.to(found.dtype)
    if expected is None:
        return "" if torch.equal(found, before) else "is not the base's, and the adapter does not reach it"
    count.trained += 1
    if found.shape != expected.shape:
        return f"has shape {tuple(found.shape)}, the trained one {tuple(expected.shape)}"
    rounded = expected.to(found.dtype)
    elsewhere = farthest = 0
    if not torch.equal(found, rounded):
        places = (_places(found) - _places(rounded)).abs_()
        elsewhere, farthest = int((places > 0).sum()), int(places.max())
    same_shape = before.shape == rounded.shape
    changed = int((rounded != before).sum()) if same_shape else rounded.numel()
    count.changed += changed
    count.elsewhere += elsewhere
    if same_shape:
        change = expected - original.float()
        count.change += change.square().sum().item()
        count.kept += ((found.float() - original.float()) * change).sum().item()
    if farthest <= 1 and elsewhere <= MAY_ROUND_OTHERWISE * changed:
        return ""
    return (
        f"has {elsewhere:,} of {found.numel():,} entries that are not base + change, the farthest by {farthest:,} "
        f"places of {str(found.dtype).removeprefix('torch.')}"
    )


def _places(tensor: torch.Tensor) -> torch.Tensor:
    """Floating-point numbers as integers, such that neighbours differ by 1."""
    import torch

    bits = tensor.view({2: torch.int16, 4: torch.int32}[tensor.element_size()]).long()
    return torch.where(bits < 0, -(bits + 2 ** (8 * tensor.element_size() - 1)), bits)


def _as_peft_merges(adapter: Path, base: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor | None]]:
    """(name, the base's tensor, what merging makes of it in float32 or None where it is left alone), tensor by tensor.

    The base is a skeleton without weights. Each module that the adapter reaches gets its own for as long as PEFT merges
    it, so that every kind of adapter that PEFT knows is merged by PEFT.

    Raises:
        RuntimeError: and others of PEFT's own, where the adapter does not fit the base.
    """
    import torch
    from peft import PeftModel

    theirs = Tensors(local_folder(base))
    skeleton = _skeleton(base)
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
            yield name, theirs[name], None


def _skeleton(base: str) -> Any:
    """The base's modules without its weights: each parameter is one number seen as many, which takes no memory."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), dtype=torch.float32)
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


def says_the_same(merged: Path, adapter: Path, base: str, conversations: list[list[dict[str, str]]]) -> Check:
    """A second look, by log-probabilities: merging is the adapter, and the folder is that merge.

    Base + adapter, PEFT's merge of it in float32, and the same rounded, on ``conversations``. The first two may differ
    by float32's noise alone: they do not where an adapter cannot be merged (one on an embedding that is the output head
    too). The folder, loaded as anybody loads it, may differ as little from the third. How far the rounding itself moves
    them is what 16 bits cost, whatever is merged: it is said and allowed.
    """
    if room := no_room_for(base):
        return Check("merged", "log_probabilities", True, f"{room}; the weights were compared one by one", {})
    import torch
    from peft import PeftModel

    tokenizer = load_tokenizer(adapter)
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
    adapted = PeftModel.from_pretrained(load_model(base), str(adapter))
    of_adapter = _log_probabilities(adapted, tokenizer, texts)
    model = adapted.merge_and_unload()
    of_merge = _log_probabilities(model, tokenizer, texts)
    ours = Tensors(merged)
    dtype = ours[next(iter(ours))].dtype
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))
    of_rounded = _log_probabilities(model, tokenizer, texts)
    del model, adapted
    of_folder = _log_probabilities(load_model(merged), tokenizer, texts)
    merging, folder, rounding = (
        (one - other).abs().mean().item()
        for one, other in ((of_merge, of_adapter), (of_folder, of_rounded), (of_folder, of_adapter))
    )
    numbers = {
        "merging": merging, "folder": folder, "rounding": rounding, "allowed": FLOAT32_NOISE, "prompts": len(texts),
    }  # fmt: skip
    if not merging <= FLOAT32_NOISE:  # NaN too
        says = (
            f"merging moves the log-probabilities by {merging:.2g} nats a token even without rounding, "
            f"{FLOAT32_NOISE:g} allowed: this adapter cannot be merged{_tied_hint(adapter, base)}"
        )
    elif not folder <= FLOAT32_NOISE:
        says = (
            f"its log-probabilities are {folder:.2g} nats a token from base + adapter rounded alike, {FLOAT32_NOISE:g} "
            "allowed: it is loaded as another model (look at its config.json), run the same command again"
        )
    else:
        says = (
            f"log-probabilities move by {merging:.1g} nats a token in merging, by {folder:.1g} in the folder; rounding "
            f"to {str(dtype).removeprefix('torch.')} moves them by {rounding:.2g}"
        )
    return Check("merged", "log_probabilities", max(merging, folder) <= FLOAT32_NOISE, says, numbers)


def _tied_hint(adapter: Path, base: str) -> str:
    config = json.loads((local_folder(base) / "config.json").read_text(encoding="utf-8"))
    reaches = any("embed" in name for name in Tensors(adapter))
    if not (config.get("tie_word_embeddings") and reaches):
        return ""
    return (
        ", since it changes the embedding, which is this base's output head too and is not adapted as such: train "
        "without embed_tokens as a target"
    )


def _log_probabilities(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Of every token of every text but the first, given those before it; shape (tokens,)."""
    import torch

    found = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        rows = next_token(model, ids, len(ids) - 1)
        found.append(rows.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0])
    return torch.cat(found)


def tokens_agree(merged: Path, trained: Path | str) -> Check:
    """Merged ends its turns, pads and renders chats as the tokenizer of training did, and has its vocabulary."""
    ours, theirs = load_tokenizer(merged), load_tokenizer(trained)
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    wrong = []
    if ours.eos_token_id != theirs.eos_token_id:
        wrong.append(f"the end-of-turn token is {ours.eos_token!r}, in training it was {theirs.eos_token!r}")
    if ours.pad_token_id == ours.eos_token_id:
        wrong.append(f"the pad token is the end-of-turn token {ours.eos_token!r}, so that turns never seem to end")
    if not ours.chat_template or ours.chat_template != theirs.chat_template:
        wrong.append(f"the chat template is {'another one' if ours.chat_template else 'missing'}")
    if len(ours) != len(theirs) or len(ours) > config["vocab_size"]:
        wrong.append(
            f"the tokenizer has {len(ours)} tokens, in training {len(theirs)}, config.json {config['vocab_size']}"
        )
    names = Tensors(merged)
    if config.get("tie_word_embeddings") and "lm_head.weight" in names:
        wrong.append("the embeddings are no longer tied: the file has an lm_head of its own")
    says = "; ".join(wrong) + ": merge again, without --check" if wrong else "end of turn, padding, chat template"
    return Check("merged", "tokens", not wrong, says, {"end_of_turn": ours.eos_token, "pad": ours.pad_token})
