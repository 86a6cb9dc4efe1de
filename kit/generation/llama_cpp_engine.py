"""llama.cpp writes the completions of a GGUF file: its own server, which needs neither torch nor Unsloth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kit.cli.errors import UserError
from kit.generation.asked_at_once import asked_at_once
from kit.generation.engine import Completion, Conversation, Engine, Finished, FinishReason, Sampling
from kit.generation.runtime import Room
from kit.llama_cpp.gguf import GgufFile
from kit.llama_cpp.server import CACHE_BYTES, ask, running_server
from kit.planning.memory_now import free_memory_bytes

_SLOTS_PER_CORE = 4
_MOST_SLOTS = 32
_SHARE = 0.5  # of the memory that is free beside the weights: the rest is for what is computed, and for other programs


@contextmanager
def open_gguf(file: Path, room: Room, adapter: Path | None = None) -> Iterator[Engine]:
    """The engine of a GGUF file, with an adapter's GGUF on it where one is named.

    Raises:
        UserError: the server cannot load it; the sentence has the server's own reason.
    """
    slots = slots_for(file, room, free_memory_bytes())
    with running_server(file, slots, context_per_slot=room.tokens, adapter=adapter) as address:
        yield _LlamaCpp(address, slots)


def slots_for(file: Path, room: Room, free_bytes: float) -> int:
    """How many prompts are answered at once: no more than there are, and than keep the cores busy; and, as each has a
    KV cache of its own, than ``free_bytes`` of memory hold."""
    wanted, a_slot = min(_SLOTS_PER_CORE * (os.cpu_count() or 2), _MOST_SLOTS, room.batch_size), 0
    with suppress(UserError):  # llama-server says better what is wrong with a file
        a_slot = room.tokens * GgufFile(file).cached_values_per_token * CACHE_BYTES
    if not a_slot:
        return wanted
    return max(1, min(wanted, int(_SHARE * (free_bytes - file.stat().st_size) / a_slot)))


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
