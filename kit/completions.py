"""COMPLETIONS: one ``generate()`` over the engines that can run an artefact.

Hugging Face folders and adapters run through Unsloth and transformers, GGUF files through llama-server, which needs
neither torch nor Unsloth. Every engine is greedy and gets the same chat messages.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.artefacts import Artefact, Kind

Messages = list[dict[str, str]]
_GGUF_SLOTS_PER_CORE = 4


@dataclass(frozen=True)
class Completion:
    """One reply: its text, its length in tokens, and whether it was cut off at the limit."""

    text: str
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Engine:
    """Something that answers batches. ``precision`` says in which number type, and on which base."""

    generate: Callable[[list[Messages]], list[Completion]]
    batch_size: int
    precision: str


@contextmanager
def open_engine(
    artefact: Artefact, max_tokens: int, max_prompt_tokens: int, batch_size: int, base_4bit: bool = False
) -> Iterator[Engine]:
    """The engine for ``artefact``, closed at the end of the ``with`` block.

    Args:
        artefact: what answers.
        max_tokens: where a completion is cut off.
        max_prompt_tokens: room for the prompt in each of llama-server's slots.
        batch_size: prompts in one forward pass; for llama-server, whose slots work in parallel, at least that.
        base_4bit: run an adapter on the 4-bit base that it was trained on, not on the 16-bit one.
    """
    if artefact.kind is Kind.GGUF:
        with _gguf_engine(artefact, max_tokens, max_prompt_tokens) as engine:
            yield engine
    else:
        yield _transformers_engine(artefact, max_tokens, batch_size, base_4bit)


@contextmanager
def _gguf_engine(artefact: Artefact, max_tokens: int, max_prompt_tokens: int) -> Iterator[Engine]:
    from kit.llama_server import ask, running_server

    slots = _GGUF_SLOTS_PER_CORE * (os.cpu_count() or 2)
    with (
        running_server(Path(artefact.path), slots, context_per_slot=max_prompt_tokens + max_tokens) as address,
        ThreadPoolExecutor(slots) as pool,
    ):

        def generate(prompts: list[Messages]) -> list[Completion]:
            return [Completion(*reply) for reply in pool.map(lambda prompt: ask(address, prompt, max_tokens), prompts)]

        yield Engine(generate, batch_size=4 * slots, precision=f"{artefact.name} GGUF")


def _transformers_engine(artefact: Artefact, max_tokens: int, batch_size: int, base_4bit: bool) -> Engine:
    from kit import hardware
    from kit.model import load_for_inference

    dtype = hardware.choose(hardware.detect(), vllm="off").dtype
    in_4bit = base_4bit and artefact.kind is Kind.ADAPTER
    model, tokenizer = load_for_inference(artefact.path, dtype, artefact.base, load_in_4bit=in_4bit)

    def generate(prompts: list[Messages]) -> list[Completion]:
        return _generate_batch(model, tokenizer, prompts, max_tokens)

    base = f", {'4' if in_4bit else '16'}-bit base" if artefact.kind is Kind.ADAPTER else ""
    return Engine(generate, batch_size, precision=dtype + base)


def _generate_batch(model: Any, tokenizer: Any, prompts: list[Messages], max_tokens: int) -> list[Completion]:
    """Greedy completions of one batch, padded on the left."""
    import torch

    texts = [tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) for prompt in prompts]
    tokenizer.padding_side = "left"
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    end = tokenizer.eos_token_id
    with torch.inference_mode():
        output = model.generate(
            **batch, max_new_tokens=max_tokens, do_sample=False, temperature=None, top_p=None, top_k=None,
            repetition_penalty=1.0, eos_token_id=end, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    completions = []
    for ids in output[:, batch["input_ids"].shape[1] :].tolist():
        length = ids.index(end) if end in ids else len(ids)
        text = tokenizer.decode(ids[:length], skip_special_tokens=True)
        completions.append(Completion(text, min(length + 1, len(ids)), truncated=end not in ids))
    return completions
