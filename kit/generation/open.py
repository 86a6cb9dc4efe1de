"""From a path to an engine: GGUF files by llama.cpp, folders by vLLM where it can be had, else transformers.

Where a server has what lies there, that answers instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from kit.chat_templates import fitted, takes_system_role
from kit.generation import vllm_on_processor
from kit.generation.artefacts import Artefact, Kind, template_of
from kit.generation.engine import Completion, Conversation, Engine, Finished, Sampling
from kit.generation.llama_cpp_engine import open_gguf
from kit.generation.processor_engine import open_on_processor
from kit.generation.runtime import Room, Runtime
from kit.generation.server_engine import ServerEngine
from kit.generation.transformers_engine import open_transformers
from kit.generation.vllm_engine import open_vllm
from kit.models.base_check import small_files
from kit.models.positions import check_positions, is_older
from kit.planning import hardware
from kit.planning.engine_choice import ANSWERS_WITHOUT, VllmNotLoaded

Answered = TypeVar("Answered")
_NO_THOUGHT = re.compile(r"\A<think>\s*</think>\s*")


@contextmanager
def open_engine(artefact: Artefact, runtime: Runtime, room: Room) -> Iterator[Engine]:
    """The engine for ``artefact``, closed at the end of the ``with`` block.

    Args:
        artefact: what answers.
        runtime: what ``choose_runtime`` said.
        room: for prompts and completions.

    Raises:
        VllmNotLoaded: vLLM was chosen and does not load.
        UserError: llama.cpp cannot load the file, or transformers would misread it.
    """
    if artefact.kind is not Kind.GGUF and not runtime.server and is_older():
        model = artefact.base or artefact.path
        with small_files(model) as folder:
            if folder:
                check_positions(folder, model)
    template = template_of(artefact)
    if template and not takes_system_role(template):
        print(
            f"{artefact.name}: its chat template takes no system role, so the system prompt stands before the question"
        )
    with _opened(artefact, runtime, room) as engine:
        yield _Fitted(engine, template)


def _opened(artefact: Artefact, runtime: Runtime, room: Room) -> AbstractContextManager[Engine]:
    if runtime.server:
        return nullcontext(ServerEngine(runtime.server.address, runtime.server.model, room.batch_size))
    if runtime.engine != "vLLM":
        vllm_on_processor.close_kept()  # it is done with, and holds memory
    if runtime.engine == "llama.cpp":
        file = Path(artefact.path)
        return open_gguf(Path(artefact.base), room, file) if artefact.base else open_gguf(file, room)
    if runtime.engine != "vLLM":
        return open_transformers(artefact, runtime, room)
    if hardware.detect().has_cuda:
        return open_vllm(artefact, runtime, room)
    return nullcontext(open_on_processor(artefact, runtime, room))


class _Fitted:
    """An engine whose conversations are brought into the form that its chat template takes.

    Of a template that would let the model think, the thought that it is told not to have is no part of the reply:
    llama-server gives it back as the reply's beginning.
    """

    def __init__(self, engine: Engine, template: str) -> None:
        self._engine, self._template = engine, template

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[Finished]:
        asked = [fitted(messages, self._template) for messages in conversations]
        thinks = "enable_thinking" in self._template
        for batch in self._engine.generate(asked, sampling):
            yield [(place, _without_thought(reply)) for place, reply in batch] if thinks else batch


def _without_thought(reply: Completion) -> Completion:
    return replace(reply, text=_NO_THOUGHT.sub("", reply.text))


def with_or_without_vllm(wish: str, answer: Callable[[str], Answered]) -> Answered:
    """What ``answer(wish)`` gives; where vLLM turns out not to load, all of it anew without, so that rows are alike.

    Args:
        wish: the user's, of vLLM: ``auto``, ``off`` or ``require``.
        answer: called with the wish, and perhaps once more with ``off``.

    Raises:
        VllmNotLoaded: it was required.
    """
    try:
        return answer(wish)
    except VllmNotLoaded as error:
        if wish == "require":
            raise
        print(f"{error}: {ANSWERS_WITHOUT}.")
    return answer("off")
