"""vLLM's processor build writes the completions: of a model folder, of an adapter, or of the policy in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kit.generation import vllm_on_processor
from kit.generation.artefacts import Artefact, Kind
from kit.generation.engine import Conversation, Engine, Finished, Sampling
from kit.generation.runtime import Room, Runtime
from kit.generation.vllm_requests import SCHEDULED_TOGETHER, as_tokens, completion, ends_of_folder
from kit.models.merged_tensors import check_goes_with, merged_tensors
from kit.models.tensors import Tensors, is_tied, with_tokenizer
from kit.planning.engine_choice import VllmNotLoaded, did_not_load
from kit.storage.generation_settings import all_ends
from kit.storage.hub import local_folder


def open_on_processor(artefact: Artefact, runtime: Runtime, room: Room) -> Engine:
    """The engine that is loaded already, if it is one for such a model, with this artefact's weights.

    Raises:
        UserError: an adapter does not go with its base.
        VllmNotLoaded: for whatever other reason.
    """
    from transformers import AutoTokenizer

    adapter = Path(artefact.path) if artefact.kind is Kind.ADAPTER else None
    model = artefact.base or artefact.path
    if adapter:
        check_goes_with(adapter, model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(with_tokenizer(adapter, model)) if adapter else model)
        llm = vllm_on_processor.kept(model, runtime.dtype, room.tokens, SCHEDULED_TOGETHER * room.batch_size)
        leave_out = "lm_head.weight" if is_tied(model) else ""
        vllm_on_processor.push(llm, _weights(adapter, model, leave_out))
        return engine_on_processor(llm, tokenizer, ends_of_folder(model))
    except Exception as error:  # vLLM and its kernels each have their own kinds
        raise VllmNotLoaded(did_not_load(error, artefact.name)) from error


def engine_on_processor(llm: Any, tokenizer: Any, ends: int | list[int] | None) -> Engine:
    """The engine of vLLM's processor build that is loaded; ``ends`` are the model's own, beside the tokenizer's."""
    return _VllmOnProcessor(llm, tokenizer, all_ends(tokenizer, ends))


def _weights(adapter: Path | None, model: str, leave_out: str) -> Iterator[tuple[str, Any]]:
    """A model's tensors, with an adapter's change where there is one: merged in float32, rounded by the engine."""
    if adapter is None:
        tensors = Tensors(local_folder(model))
        yield from ((name, tensors[name]) for name in tensors if name != leave_out)
        return
    for name, original, merged in merged_tensors(adapter, model):
        if name != leave_out:
            yield name, original if merged is None else merged


class _VllmOnProcessor:
    """All rows are drawn from one random stream: with a seed for each, half the rate is lost."""

    def __init__(self, llm: Any, tokenizer: Any, ends: list[int]) -> None:
        self._llm, self._tokenizer, self._ends = llm, tokenizer, ends

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[Finished]:
        import torch
        from vllm import SamplingParams

        torch.manual_seed(sampling.seed)
        parameters = SamplingParams(
            temperature=sampling.temperature, max_tokens=sampling.max_tokens, stop_token_ids=self._ends,
            logprobs=0 if sampling.logprobs else None,
        )  # fmt: skip
        places = {}
        for place, messages in enumerate(conversations):
            places[str(place)] = place
            self._llm.llm_engine.add_request(str(place), as_tokens(self._tokenizer, messages), parameters)
        while self._llm.llm_engine.has_unfinished_requests():
            done = [output for output in self._llm.llm_engine.step() if output.finished]
            if done:
                yield [(places[output.request_id], completion(output.outputs[0])) for output in done]
