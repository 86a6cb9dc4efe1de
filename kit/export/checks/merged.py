"""Is merged/ the base plus what was trained? Looked at tensor by tensor, then by what it says, then its tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.cli.errors import first_line
from kit.export.checks.check import Check
from kit.export.weights import load_model, load_tokenizer, next_token, no_room_for
from kit.models.merged_tensors import PEFT_ERRORS, PREFIX, merged_tensors
from kit.models.tensors import Tensors, embedding_rows, is_tied, with_tokenizer
from kit.storage.generation_settings import ends_of_turn, shapes_replies
from kit.storage.hub import local_folder

if TYPE_CHECKING:
    import torch

# Processors add up in different orders, which moves a sum by some 1e-6 of the change. So this share of the entries that
# training changed may be rounded to a neighbouring value.
MAY_ROUND_OTHERWISE = 0.02
_FACTORS = (".lora_A.weight", ".lora_B.weight")
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
    """Each tensor of merged is round16(base + change) to the last place, what training left alone the base's.

    Nothing is missing, nothing extra. One tensor is held at a time.
    """
    ours, count, wrong = Tensors(merged), _Count(), []
    missing, extra = _names_that_differ(ours, Tensors(local_folder(base)), merged)
    try:
        for name, original, expected in _expected(adapter, base):
            if name in ours and (fault := _fault(ours[name], original, expected, count)):
                wrong.append(f"{name} {fault}")
            elif name not in ours and expected is not None:
                missing.append(name)
            extra = [other for other in extra if other != name]
    except PEFT_ERRORS as error:
        says = f"{adapter} does not go with {base}, PEFT says: {first_line(error)}"
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
    free = {"lm_head.weight"} if is_tied(merged) else set()
    missing = [name for name in theirs if name not in ours and name not in free]
    return missing, [name for name in ours if name not in theirs and name not in free]


def _fault(found: torch.Tensor, original: torch.Tensor, expected: torch.Tensor | None, count: _Count) -> str:
    """What is wrong with a tensor of merged, in words; counts its entries. ``expected`` is None: as the base's."""
    import torch

    count.tensors += 1
    if not torch.isfinite(found).all():
        return "holds NaN or infinite entries"
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


def _expected(adapter: Path, base: str) -> Iterator[tuple[str, torch.Tensor, torch.Tensor | None]]:
    """As ``merged_tensors``; of a plain LoRA by its formula from the two files, without PEFT, which did the merge."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    factors, theirs = Tensors(adapter), Tensors(local_folder(base))
    if not _is_plain(config, factors, theirs):
        yield from merged_tensors(adapter, base)
        return
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    for name in theirs:
        module = f"{PREFIX}{name.removesuffix('.weight')}"
        if f"{module}.lora_A.weight" not in factors:
            yield name, theirs[name], None
            continue
        a, b = (factors[f"{module}.lora_{factor}.weight"].float() for factor in "AB")
        yield name, theirs[name], theirs[name].float() + (b @ a) * scale


def _is_plain(config: dict[str, Any], factors: Tensors, theirs: Tensors) -> bool:
    """LoRA of one rank and scale on linear layers and nothing else: the kit's own adapters, and most others."""
    odd = ("use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "modules_to_save", "lora_bias", "use_qalora")
    if config.get("peft_type") != "LORA" or any(config.get(name) for name in odd):
        return False
    modules = [name.removesuffix(ending) for name in factors for ending in _FACTORS if name.endswith(ending)]
    known = all(f"{module.removeprefix(PREFIX)}.weight" in theirs for module in modules)
    return known and len(modules) == len(list(factors))


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

    tokenizer = load_tokenizer(with_tokenizer(adapter, base))
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
    model = load_model(base)
    if (rows := embedding_rows(adapter)) and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    adapted = PeftModel.from_pretrained(model, str(adapter))
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
    passed = merging <= FLOAT32_NOISE and folder <= FLOAT32_NOISE
    return Check("merged", "log_probabilities", passed, says, numbers)


def _tied_hint(adapter: Path, base: str) -> str:
    reaches = any("embed" in name for name in Tensors(adapter))
    if not (reaches and is_tied(base)):
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


def _chat(tokenizer: Any) -> list[int]:
    """The tokens of a short talk; spaces and line ends beside the marks of its turns are what may get lost."""
    talk = [{"role": "user", "content": "2 + 2 =\n"}, {"role": "assistant", "content": " 4\n\nright"}]
    text = tokenizer.apply_chat_template(talk, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def tokens_agree(merged: Path, trained: Path | str) -> Check:
    """Merged ends its turns, pads and renders chats as the tokenizer of training did, and has its vocabulary."""
    ours, theirs = load_tokenizer(merged), load_tokenizer(trained)
    config = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    wrong = []
    if (ends := ends_of_turn(merged)) and ours.eos_token_id not in (None, *ends):
        wrong.append(f"generation_config.json ends a turn with {ends} and not with {ours.eos_token!r}")
    if ours.eos_token_id != theirs.eos_token_id:
        wrong.append(f"the end-of-turn token is {ours.eos_token!r}, in training it was {theirs.eos_token!r}")
    if ours.pad_token_id == ours.eos_token_id:
        wrong.append(f"the pad token is the end-of-turn token {ours.eos_token!r}, so that turns never seem to end")
    if not ours.chat_template or ours.chat_template != theirs.chat_template:
        wrong.append(f"the chat template is {'another one' if ours.chat_template else 'missing'}")
    if ours.chat_template and ours.chat_template == theirs.chat_template and _chat(ours) != _chat(theirs):
        wrong.append("a chat becomes other tokens")
    if len(ours) != len(theirs) or len(ours) > config["vocab_size"]:
        wrong.append(
            f"the tokenizer has {len(ours)} tokens, in training {len(theirs)}, config.json {config['vocab_size']}"
        )
    if asked := shapes_replies(merged):
        wrong.append(f"generation_config.json asks for what it was not scored with ({', '.join(asked)})")
    names = Tensors(merged)
    if "lm_head.weight" in names and is_tied(merged):
        wrong.append("the embeddings are no longer tied: the file has an lm_head of its own")
    says = "; ".join(wrong) + ": merge again, without --check" if wrong else "end of turn, padding, chat template"
    return Check("merged", "tokens", not wrong, says, {"end_of_turn": ours.eos_token, "pad": ours.pad_token})
