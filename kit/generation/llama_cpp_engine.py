"""llama.cpp writes the completions of a GGUF file: its own server, which needs neither torch nor Unsloth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kit.generation.asked_at_once import asked_at_once
from kit.generation.engine import Completion, Conversation, Engine, Finished, FinishReason, Sampling
from kit.generation.runtime import Room
from kit.llama_cpp.server import ask, running_server

_SLOTS_PER_CORE = 4
_MOST_SLOTS = 32  # each has a KV cache of its own


@contextmanager
def open_gguf(file: Path, room: Room, adapter: Path | None = None) -> Iterator[Engine]:
    """The engine of a GGUF file, with an adapter's GGUF on it where one is named.

    Raises:
        UserError: the server cannot load it; the sentence has the server's own reason.
    """
    slots = min(_SLOTS_PER_CORE * (os.cpu_count() or 2), _MOST_SLOTS)
    context = room.prompt_tokens + room.completion_tokens
    with running_server(file, slots, context_per_slot=context, adapter=adapter) as address:
        yield _LlamaCpp(address, slots)


class _LlamaCpp:
    def __init__(self, address: str, slots: int) -> None:
        self._address, self._slots = address, slots

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[Finished]:
        return asked_at_once(lambda prompt, place: self._ask(prompt, sampling, place), conversations, self._slots)

    def _ask(self, messages: Conversation, sampling: Sampling, place: int) -> Completion:
        seed = sampling.seed + place
        answer = ask(self._address, messages, sampling.max_tokens, sampling.temperature, seed, sampling.logprobs)
        ids, logprobs = zip(*answer.logprobs, strict=True) if answer.logprobs else ((), ())
        ended: FinishReason = "length" if answer.truncated else "stop"
        return Completion(answer.text, answer.tokens, ended, tuple(ids), tuple(logprobs))
