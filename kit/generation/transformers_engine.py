"""transformers writes the completions: of a model folder, of an adapter, or of a policy that is loaded already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.generation.artefacts import Artefact, Kind
from kit.generation.engine import Completion, Conversation, Engine, Finished, Sampling, rendered_prompt
from kit.generation.runtime import Room, Runtime
from kit.models.adapter_fit import check_fits
from kit.planning.memory_now import free_card
from kit.storage.generation_settings import all_ends


@contextmanager
def open_transformers(artefact: Artefact, runtime: Runtime, room: Room) -> Iterator[Engine]:
    """The engine of a folder, as Unsloth loads it."""
    from kit.models.loading import load_for_inference

    free_card()  # of the artefact before this one
    model, tokenizer = load_for_inference(artefact.path, runtime.dtype, artefact.base, load_in_4bit=runtime.base_4bit)
    if artefact.kind is Kind.ADAPTER and artefact.base:
        check_fits(model, Path(artefact.path), artefact.base)
    yield engine_of(model, tokenizer, room.batch_size)


def engine_of(model: Any, tokenizer: Any, batch_size: int) -> Engine:
    """The engine of a transformers model that is loaded, such as the policy that is being trained."""
    return _Transformers(model, tokenizer, batch_size)


class _Transformers:
    def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
        self._model, self._tokenizer, self._batch_size = model, tokenizer, batch_size

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[Finished]:
        import torch

        texts = [rendered_prompt(self._tokenizer, messages) for messages in conversations]
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little padding in each batch
        for start in range(0, len(by_length), self._batch_size):
            batch = by_length[start : start + self._batch_size]
            torch.manual_seed(sampling.seed + batch[0])
            yield list(zip(batch, self._batch([texts[index] for index in batch], sampling), strict=True))

    def _batch(self, texts: list[str], sampling: Sampling) -> list[Completion]:
        """Completions of rendered prompts, padded on the left."""
        import torch

        tokenizer, greedy = self._tokenizer, sampling.temperature == 0
        tokenizer.padding_side = "left"
        prompts = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self._model.device)
        ends = all_ends(self._tokenizer, self._model.generation_config.eos_token_id)
        with torch.inference_mode():
            output = self._model.generate(
                **prompts, max_new_tokens=sampling.max_tokens, do_sample=not greedy,
                temperature=None if greedy else sampling.temperature, top_p=None, top_k=None if greedy else 0,
                repetition_penalty=1.0, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id,
                return_dict_in_generate=True, output_logits=sampling.logprobs,
            )  # fmt: skip
        written = output.sequences[:, prompts["input_ids"].shape[1] :]
        logprobs: list[list[float]] = [[] for _ in texts]
        if sampling.logprobs:
            rows = torch.stack(output.logits, 1).float().log_softmax(-1)
            logprobs = rows.gather(-1, written[..., None])[..., 0].tolist()
        return [self._completion(*row, ends) for row in zip(written.tolist(), logprobs, strict=True)]

    def _completion(self, ids: list[int], logprobs: list[float], ends: list[int]) -> Completion:
        length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        return Completion(
            self._tokenizer.decode(ids[:length], skip_special_tokens=True),
            min(length + 1, len(ids)),
            "length" if length == len(ids) else "stop",
            tuple(ids[: length + 1]) if logprobs else (),
            tuple(logprobs[: length + 1]),
        )
