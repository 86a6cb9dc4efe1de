"""Is a GGUF file the merged model? Its metadata, its weights, and for f16 its replies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.chat_templates import UNTHINKING
from kit.export.checks.check import Check
from kit.export.checks.rounding import LAST_OF_16_BITS, OTHER_16_BITS, rms, steps_of
from kit.export.weights import load_model, load_tokenizer, next_token, no_room_for
from kit.generation.engine import Sampling
from kit.generation.llama_cpp_engine import open_gguf
from kit.generation.runtime import Room
from kit.llama_cpp.gguf import GgufFile
from kit.models.tensors import Tensors
from kit.storage.generation_settings import GREEDY_METADATA
from kit.storage.hub import local_folder

# llama.cpp rounds activations to 16 bits (11 significant ones) in every product of an f16 file: seen, 0.0005 nats a
# token on Qwen2.5-Coder-0.5B (0.00015 on the demo's model). Of two tokens that are closer than the
# second, either may win.
MAX_F16_DIFFERENCE_NATS, NEAR_TIE_NATS = 0.01, 0.05
# Halfway between the base (0) and merged (1) a file begins to be the base. Rounding adds noise that knows nothing of
# the change; its own spread comes on top, so many times: it is small unless the change is tiny or the model is.
SHARE_RANGE, SPREADS = (0.5, 1.5), 3.0
_ON_GRID = 0.5  # of the noise that rounding to a step leaves in weights that lie anywhere
_MUCH, _PARTLY = 0.25, 0.1
MAX_REPLY_TOKENS = 96
_SPECIAL_TOKENS = 8  # that llama.cpp may put before a prompt

Distances = Callable[[Path], tuple[float | None, float | None]]  # of a file: mean KL from f16, and from the base


def metadata_agrees(gguf: GgufFile, merged: Path, f16: GgufFile | None = None) -> Check:
    """The GGUF's own metadata name merged's end of turn, padding, chat template and vocabulary, and say: greedy. What
    else it says (architecture, tokens, merges, positions, norms) is what ``f16`` says."""
    tokenizer = load_tokenizer(merged)
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
    said = {name: gguf.value(name) for name in GREEDY_METADATA}
    if others := [f"{name} {said[name]}" for name, value in GREEDY_METADATA.items() if said[name] != value]:
        wrong.append(f"it asks for sampling that it was not scored with ({', '.join(others)})")
    ours, theirs = gguf.metadata, f16.metadata if f16 else gguf.metadata
    if others := sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key) and _is_of_model(key)):
        wrong.append(f"{', '.join(others)} not as in f16, or of another llama.cpp")
    says = "; ".join(wrong) + ": export it again" if wrong else "end of turn, padding, chat template, greedy"
    return Check(gguf.path.name, "metadata", not wrong, says, {"end_of_turn_id": end, "pad_id": pad})


def _is_of_model(key: str) -> bool:
    """Is this metadata key no matter of one file alone, as its name, its type and how it was quantized are?"""
    return not key.startswith(("general.", "quantize.", "split.")) or key.startswith(
        ("general.architecture", "general.sampling.")
    )


def answers_as_merged(
    f16: Path, merged: Path, prompts: list[list[dict[str, str]]], adapter: Path | None = None
) -> Check:
    """The f16 GGUF's greedy replies are merged's, token for token but for ties, with the same log-probabilities.

    With ``adapter``, a GGUF of its own on the f16 GGUF of its base, the two together are. llama-server writes the
    replies; merged in float32 then reads them: at each token it must have picked the same one, or one that is within
    ``NEAR_TIE_NATS``.
    """
    of = (adapter or f16).name
    if room := no_room_for(str(merged)):
        return Check(of, "answers", True, f"{room}; its trained weights were compared with merged's", {})
    tokenizer = load_tokenizer(merged)
    asked = [
        tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **UNTHINKING)
        for prompt in prompts
    ]
    asked_ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked]
    longest = max(map(len, asked_ids)) + _SPECIAL_TOKENS
    with open_gguf(f16, Room(longest, MAX_REPLY_TOKENS, batch_size=len(prompts)), adapter) as engine:
        batches = engine.generate(prompts, Sampling(MAX_REPLY_TOKENS, logprobs=True))
        replies = {place: reply for batch in batches for place, reply in batch}
    differences, gaps = [], []
    model = load_model(merged)
    for place, prompt_ids in enumerate(asked_ids):
        reply = replies[place]
        ids = prompt_ids + list(reply.token_ids)
        rows = next_token(model, ids, len(reply.token_ids))
        for row, token, log_probability in zip(rows, reply.token_ids, reply.logprobs, strict=True):
            if len(reply.token_ids) < reply.tokens and _is_part_of_a_character(tokenizer, int(row.argmax()), token):
                break  # llama-server names no token that ends within a character: what comes after stands elsewhere
            differences.append(abs(row[token].item() - log_probability))
            gaps.append((row.max() - row[token]).item())
    mean, widest = sum(differences) / len(differences), max(gaps)
    passed = mean <= MAX_F16_DIFFERENCE_NATS and widest <= NEAR_TIE_NATS
    says = (
        f"{len(gaps)} tokens of {len(prompts)} greedy replies, log-probabilities {mean:.2g} nats from merged "
        f"({MAX_F16_DIFFERENCE_NATS} allowed), {sum(gap > 0 for gap in gaps)} other tokens, the widest by "
        f"{widest:.2g} ({NEAR_TIE_NATS} allowed)"
    )
    remedy = "" if passed else ": it does not answer as merged does, export it again"
    numbers = {
        "tokens": len(gaps), "mean_difference": mean, "widest_gap": widest, "mean_allowed": MAX_F16_DIFFERENCE_NATS,
        "tie": NEAR_TIE_NATS,
    }  # fmt: skip
    return Check(of, "answers", passed, says + remedy, numbers)


def _is_part_of_a_character(tokenizer: Any, likeliest: int, reported: int) -> bool:
    return likeliest != reported and "\ufffd" in tokenizer.decode([likeliest])


@dataclass
class _Sums:
    """Sums over the entries of the matrices that training changed."""

    carried: float = 0.0  # (file - base) x change
    change: float = 0.0  # change²
    spread: float = 0.0  # ((file - merged) x change)²
    change_on_grid: float = 0.0  # change² in matrices whose base this file's type holds without rounding
    step: float = 0.0  # (a step of the type)², in quantized matrices
    not_merged: list[str] = field(default_factory=list)  # matrices of 16 bits that are not merged's

    @property
    def share(self) -> float:
        """How much of the change is in the file: 1 all of it, 0 none; its projection on the change."""
        return self.carried / self.change

    @property
    def share_spread(self) -> float:
        """The standard deviation of ``share`` that rounding alone gives it."""
        return self.spread**0.5 / self.change

    @property
    def change_in_steps(self) -> float:
        """The change's size beside a step of the type; infinite where nothing is quantized."""
        return (self.change / self.step) ** 0.5 if self.step else float("inf")


def carries_training(gguf: GgufFile, readable: GgufFile, merged: Path, base: str, distances: Distances) -> Check:
    """How much of what training changed is in the GGUF's weights?

    Rounding moves each weight to a step of the type. Where the base lies anywhere between the steps, as published
    weights do, that is noise around the change, however small. Where the base lies on the steps, as weights do that
    were unpacked from a quantized file, a change of less than half a step is rounded away everywhere.

    Args:
        gguf: the file.
        readable: the file itself, or a copy of it in a type that can be read here.
        merged: the folder that it was made from.
        base: what training began with.
        distances: asked only about a file that does not carry the training.
    """
    try:
        sums = _sums(gguf, readable, merged, base)
    except KeyError as error:
        says = f"it holds no {error.args[0]}: it is no whole model of this kind, export it again"
        return Check(gguf.path.name, "carries_adapter", False, says, {})
    if not sums.change:
        return Check(gguf.path.name, "carries_adapter", True, "training changed no matrix of it", {})
    if sums.not_merged:
        more = f" (and {len(sums.not_merged) - 1} more)" if len(sums.not_merged) > 1 else ""
        says = f"its {sums.not_merged[0]}{more} is not merged's: it is of other weights or damaged, export it again"
        return Check(gguf.path.name, "carries_adapter", False, says, {"not_merged": len(sums.not_merged)})
    share, spread = sums.share, SPREADS * sums.share_spread
    low, high = SHARE_RANGE[0] - spread, SHARE_RANGE[1] + spread
    numbers = {"share": share, "spread": sums.share_spread, "change_in_steps": sums.change_in_steps}
    says = f"{share:.2f} of what training changed is in it"
    if low <= share <= high:
        return Check(gguf.path.name, "carries_adapter", True, says, numbers)
    says += f" ({low:.2f} to {high:.2f} allowed)"
    partly = share > _PARTLY and sums.change_in_steps < _ON_GRID
    if share > high or not (partly or sums.change_on_grid > _MUCH * sums.change):
        says += ": it was made from other weights, export it again"
        return Check(gguf.path.name, "carries_adapter", False, says, numbers)
    from_f16, from_base = distances(gguf.path)
    answers = ""
    if from_f16 is not None and from_base is not None:
        answers = f" Its answers are {from_f16:.2g} nats a token from f16's and {from_base:.2g} from the base's."
        numbers |= {"kl_from_f16": from_f16, "kl_from_base": from_base}
    says += (
        f": training moved the weights by {sums.change_in_steps:.2g} of this type's step, and the base's lie on its "
        f"steps already, as if unpacked from such a file, so rounding takes the change away.{answers} Choose a finer "
        "type (q8_0, f16), train longer, or start from the published 16-bit weights"
    )
    return Check(gguf.path.name, "carries_adapter", False, says, numbers)


def _sums(gguf: GgufFile, readable: GgufFile, merged: Path, base: str) -> _Sums:
    originals, sums = Tensors(local_folder(base)), _Sums()
    ours = Tensors(merged)
    for name in ours:
        if name not in originals:
            continue
        tensor, original = ours[name].float(), originals[name].float()
        if tensor.dim() != 2 or tensor.shape != original.shape or not (change := tensor - original).any():
            continue
        in_file = original.new_tensor(readable.in_order(readable.matrix(name), name, tensor.numpy()))
        of_change = change.square().sum().item()
        sums.carried += ((in_file - original) * change).sum().item()
        sums.change += of_change
        sums.spread += ((in_file - tensor) * change).square().sum().item()
        if bits := gguf.bits(name):
            step = rms(steps_of(original, bits), 0).item()
            sums.step += step**2 * change.numel()
            if rms(in_file - original, (0, 1)).item() < _ON_GRID * step / 12**0.5:
                sums.change_on_grid += of_change
        elif not (rms(in_file - tensor, 1) <= OTHER_16_BITS * rms(tensor, 1) + LAST_OF_16_BITS).all():  # NaN too
            sums.not_merged.append(gguf.name_of(name))
    return sums
