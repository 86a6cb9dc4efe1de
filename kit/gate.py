"""The gate that every export passes: is what was written the model that was trained? Each check has its number.

The checks use transformers and PEFT as they come, not Unsloth, which did the merge: two roads to the same weights.
Everything is computed in float32, where what is left of a difference is the difference of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import UserError
from kit.gguf_files import GgufFile
from kit.hardware import free_card

if TYPE_CHECKING:
    import torch

# Merging rounds the changed weights to 16 bits. How far that alone moves the log-probabilities is measured, by rounding
# PEFT's own merge; merged may be twice as far away (Unsloth's merge differs from PEFT's by 0 on a CPU; a card adds up
# in another order), and no less than float32's own noise. One layer scaled by 1.05 moves them 40 times as far.
ROUNDING_FACTOR, FLOAT32_NOISE = 2.0, 1e-4
# llama.cpp rounds activations to 16 bits (11 significant ones) in every product of an f16 file: seen, 0.00015 nats a
# token. Where the two likeliest tokens are closer than TIE, either may win.
F16_MEAN, TIE = 0.01, 0.05
# Quantizing adds noise that knows nothing of the adapter, so its share stays near 1; a file of the base has 0.
CARRIED = (0.5, 1.5)
MAX_REPLY_TOKENS = 96
_SLOTS = 4


@dataclass(frozen=True)
class Check:
    """One check of one artefact; ``says`` is a sentence with its number, ``numbers`` go into export.json."""

    of: str
    name: str
    passed: bool
    says: str
    numbers: dict[str, Any] = field(default_factory=dict)


class ExportRefused(UserError):
    """The gate did not let an export pass."""

    exit_status = 3


def load_libraries() -> None:
    """Import what the checks need, which takes seconds."""
    from peft import PeftModel  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401


def refuse_failed(checks: list[Check]) -> None:
    """Raise unless all passed.

    Raises:
        ExportRefused: with a sentence for each failed check.
    """
    failed = [f"{check.of}: {check.says}" for check in checks if not check.passed]
    if failed:
        raise ExportRefused(*failed)


def adapter_is_trained(adapter: Path) -> Check:
    """The adapter differs from zero: LoRA's B matrices start there, and B·A is what a merge adds."""
    import torch

    tensors = dict(_tensors(adapter))
    factors = {name: tensor.float() for name, tensor in tensors.items() if "lora_B" in name}
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    largest = max((tensor.abs().max().item() for tensor in factors.values()), default=0.0)
    moved = sum(bool(tensor.any()) for tensor in factors.values())
    if not finite:
        says = "holds NaN or infinite weights: train again with a smaller --learning-rate"
    elif not moved:
        says = "is zero everywhere, merging it gives the base again: train longer or with a larger --learning-rate"
    else:
        says = f"{moved} of {len(factors)} matrices differ from zero, the largest weight is {largest:.2g}"
    return Check("adapter", "trained", finite and moved > 0, says, {"matrices": len(factors), "moved": moved})


def merged_agrees(merged: Path, adapter: Path, base: str, conversations: list[list[dict[str, str]]]) -> Check:
    """Merged gives the log-probabilities of base + adapter on ``conversations``, but for the rounding to 16 bits."""
    from peft import PeftModel

    tokenizer = _tokenizer(adapter)
    texts = [tokenizer.apply_chat_template(messages, tokenize=False) for messages in conversations]
    of_merged = _log_probabilities(_model(merged), tokenizer, texts)
    adapted = PeftModel.from_pretrained(_model(base), str(adapter))
    of_adapter = _log_probabilities(adapted, tokenizer, texts)
    rounded = adapted.merge_and_unload()
    dtype = next(tensor.dtype for _, tensor in _tensors(merged))
    for tensor in rounded.state_dict().values():
        tensor.copy_(tensor.to(dtype).float())
    of_rounded = _log_probabilities(rounded, tokenizer, texts)
    difference = (of_merged - of_adapter).abs().mean().item()
    noise = (of_rounded - of_adapter).abs().mean().item()
    tolerance = ROUNDING_FACTOR * noise + FLOAT32_NOISE
    agrees = difference <= tolerance  # False for NaN
    says = f"log-probabilities are {difference:.2g} nats a token from base + adapter, {tolerance:.2g} allowed"
    remedy = "" if agrees else ": these are not the trained weights, run the same command again"
    numbers = {"mean_difference": difference, "tolerance": tolerance, "rounding_noise": noise, "prompts": len(texts)}
    return Check("merged", "log_probabilities", agrees, says + remedy, numbers)


def tokens_agree(merged: Path, trained: Path | str) -> Check:
    """Merged ends its turns, pads and renders chats as the tokenizer of training did, and has its vocabulary."""
    ours, theirs = _tokenizer(merged), _tokenizer(trained)
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
    names = [name for name, _ in _tensors(merged)]
    if config.get("tie_word_embeddings") and "lm_head.weight" in names:
        wrong.append("the embeddings are no longer tied: the file has an lm_head of its own")
    says = "; ".join(wrong) + ": save the adapter's tokenizer again" if wrong else "end of turn, padding, chat template"
    return Check("merged", "tokens", not wrong, says, {"end_of_turn": ours.eos_token, "pad": ours.pad_token})


def gguf_metadata_agrees(gguf: GgufFile, merged: Path) -> Check:
    """The GGUF's own metadata name the same end of turn, padding, chat template and vocabulary as merged."""
    tokenizer = _tokenizer(merged)
    end, pad = gguf.value("tokenizer.ggml.eos_token_id"), gguf.value("tokenizer.ggml.padding_token_id")
    wrong = []
    if end != tokenizer.eos_token_id:
        wrong.append(f"the end-of-turn token is {end}, in merged {tokenizer.eos_token_id}")
    if pad == end:
        wrong.append("the pad token is the end-of-turn token")
    if gguf.value("tokenizer.chat_template") != tokenizer.chat_template:
        wrong.append("the chat template is not merged's")
    if gguf.vocabulary_size < len(tokenizer):
        wrong.append(f"{gguf.vocabulary_size} tokens, merged has {len(tokenizer)}")
    says = "; ".join(wrong) + ": export it again" if wrong else "end of turn, padding, chat template and vocabulary"
    return Check(gguf.path.name, "metadata", not wrong, says, {"end_of_turn_id": end, "pad_id": pad})


def gguf_answers_as_merged(f16: Path, merged: Path, prompts: list[list[dict[str, str]]]) -> Check:
    """The f16 GGUF's greedy replies are merged's, token for token but for ties, with the same log-probabilities.

    llama-server writes the replies; merged in float32 then reads them: at each token it must have picked the same one,
    or one that is within ``TIE``.
    """
    from kit.llama_server import ask, running_server

    with running_server(f16, _SLOTS, context_per_slot=4096) as address, ThreadPoolExecutor(_SLOTS) as pool:
        answers = list(pool.map(lambda prompt: ask(address, prompt, MAX_REPLY_TOKENS, logprobs=True), prompts))
    tokenizer = _tokenizer(merged)
    differences, gaps = [], []
    model = _model(merged)
    for prompt, answer in zip(prompts, answers, strict=True):
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        reply = [token for token, _ in answer.logprobs]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] + reply
        for row, (token, log_probability) in zip(_next_token(model, ids, len(reply)), answer.logprobs, strict=True):
            differences.append(abs(row[token].item() - log_probability))
            gaps.append((row.max() - row[token]).item())
    mean, widest = sum(differences) / len(differences), max(gaps)
    passed = mean <= F16_MEAN and widest <= TIE
    says = (
        f"{len(gaps)} tokens of {len(prompts)} greedy replies, log-probabilities {mean:.2g} nats from merged "
        f"({F16_MEAN} allowed), {sum(gap > 0 for gap in gaps)} other tokens, the widest by {widest:.2g} ({TIE} allowed)"
    )
    remedy = "" if passed else ": it does not answer as merged does, export it again"
    numbers = {"tokens": len(gaps), "mean_difference": mean, "widest_gap": widest, "mean_allowed": F16_MEAN, "tie": TIE}
    return Check(f16.name, "answers", passed, says + remedy, numbers)


def gguf_carries_adapter(name: str, gguf: GgufFile, merged: Path, base: str) -> Check:
    """How much of what training changed is in the GGUF's weights? 1 is all of it, 0 is the base.

    The share is the projection of (GGUF - base) on (merged - base), over all matrices that training changed. Query and
    key matrices are left out, since some architectures store them in another order.
    """
    from kit.hub import local_folder

    shared = total = 0.0
    originals = dict(_tensors(local_folder(base)))
    for key, tensor in _tensors(merged):
        if tensor.dim() != 2 or key not in originals or "q_proj" in key or "k_proj" in key:
            continue
        original = originals[key].float()
        change = tensor.float() - original
        if change.any():
            in_file = original.new_tensor(gguf.matrix(key))
            shared += ((in_file - original) * change).sum().item()
            total += change.square().sum().item()
    share = shared / total if total else 0.0
    passed = CARRIED[0] <= share <= CARRIED[1]
    says = f"{share:.2f} of what training changed is in it"
    remedy = (
        "" if passed else f" ({CARRIED[0]} to {CARRIED[1]} allowed): it was made from other weights, export it again"
    )
    return Check(name, "carries_adapter", passed, says + remedy, {"share": share})


def _model(path: Path | str) -> Any:
    """A model in float32, on the card if there is one with room for it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32).eval()
    free_card()
    fits = torch.cuda.is_available() and 1.5 * model.get_memory_footprint() < torch.cuda.mem_get_info()[0]
    return model.to("cuda") if fits else model


def _tokenizer(path: Path | str) -> Any:
    files = sorted(Path(path).glob("*.j*")) if Path(path).is_dir() else []
    return _load_tokenizer(str(path), tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=4)
def _load_tokenizer(path: str, _: tuple[int, ...]) -> Any:
    """Loaded once while its files stay as they are: 150,000 tokens take a second or two."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - this is no dict
                yield name, weights.get_tensor(name)


def _log_probabilities(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Of every token of every text but the first, given those before it; shape (tokens,)."""
    import torch

    found = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        rows = _next_token(model, ids, len(ids) - 1)
        found.append(rows.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0])
    return torch.cat(found)


def _next_token(model: Any, ids: list[int], last: int) -> torch.Tensor:
    """Log-probabilities of what comes at each of the ``last`` positions of ``ids``; shape (last, vocabulary)."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([ids], device=model.device), logits_to_keep=last + 1).logits
    return logits[0, -last - 1 : -1].float().log_softmax(-1).cpu()
