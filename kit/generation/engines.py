"""COMPLETIONS: one ``generate()`` over the engines that can run an artefact.

Hugging Face folders and adapters run through vLLM where there is a CUDA card, else through Unsloth and transformers;
GGUF files through llama-server, which needs neither torch nor Unsloth. Every engine gets the same chat messages.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from kit.chat_templates import fitted, takes_system_role
from kit.cli.errors import UserError, first_line
from kit.generation.artefacts import Artefact, Kind, lora_rank, template_of
from kit.planning import hardware
from kit.storage.generation_settings import ends_of_turn
from kit.storage.hub import local_folder, sixteen_bit_name

Messages = list[dict[str, str]]
_GGUF_SLOTS_PER_CORE = 4
_MOST_SLOTS = 32  # each has a KV cache of its own
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that vLLM makes room for
_VLLM_MEMORY_SHARE = 0.8  # of the whole card, or less:
_VLLM_SPARED_GIB = 1.0  # vLLM refuses a share that is not free; its own process takes something before it looks
_VLLM_BATCHES_IN_FLIGHT = 8  # vLLM schedules inside a call, so the more prompts a call has, the fuller the card


@dataclass(frozen=True)
class Completion:
    """One reply: its text, its length in tokens, and whether it was cut off at the limit."""

    text: str
    tokens: int
    truncated: bool


Finished = list[tuple[int, Completion]]  # of one batch: (index of the prompt, its completion)


@dataclass(frozen=True)
class Backend:
    """What runs an artefact, known before anything is loaded: the engine's name, and in which number type."""

    engine: str
    dtype: str
    precision: str
    base_4bit: bool = False


@dataclass(frozen=True)
class Engine:
    """Something that answers: ``generate(prompts, temperature, seed)`` yields batches as they are finished.

    Temperature 0 is greedy. The order in which prompts are finished is the engine's own.
    """

    generate: Callable[[list[Messages], float, int], Iterator[Finished]]


class VllmNotLoaded(UserError):
    """vLLM is there and cannot be loaded; the sentence says why."""


def choose_backend(artefact: Artefact, base_4bit: bool = False, vllm: str = "auto") -> Backend:
    """What will run ``artefact`` on this machine.

    Args:
        artefact: what answers.
        base_4bit: put an adapter on the 4-bit base of its training.
        vllm: the user's wish: ``auto``, ``off`` or ``require``.

    Raises:
        UserError: vLLM is required and cannot be had.
    """
    if artefact.kind is Kind.GGUF:
        kind = artefact.number_type
        return Backend("llama.cpp", kind or artefact.name, f"{kind} GGUF" if kind else "GGUF")
    in_4bit = base_4bit and artefact.kind is Kind.ADAPTER
    choice = hardware.choose(hardware.detect(), vllm="off" if in_4bit else vllm)
    base = f", {'4' if in_4bit else '16'}-bit base" if artefact.kind is Kind.ADAPTER else ""
    return Backend("vLLM" if choice.use_vllm else "transformers", choice.dtype, choice.dtype + base, in_4bit)


@contextmanager
def open_engine(
    artefact: Artefact, backend: Backend, max_tokens: int, max_prompt_tokens: int, batch_size: int
) -> Iterator[Engine]:
    """The engine for ``artefact``, closed at the end of the ``with`` block.

    Args:
        artefact: what answers.
        backend: what ``choose_backend`` said.
        max_tokens: where a completion is cut off.
        max_prompt_tokens: room for the prompt, where an engine sets room aside beforehand.
        batch_size: prompts in one forward pass of transformers.
    """
    opened = {"llama.cpp": _llama_engine, "vLLM": _vllm_engine, "transformers": _transformers_engine}[backend.engine]
    template = template_of(artefact)
    if template and not takes_system_role(template):
        print(
            f"{artefact.name}: its chat template takes no system role, so the system prompt stands before the question"
        )
    with opened(artefact, backend, max_tokens, max_prompt_tokens, batch_size) as engine:
        yield Engine(lambda prompts, *how: engine.generate([fitted(prompt, template) for prompt in prompts], *how))


@contextmanager
def _llama_engine(artefact: Artefact, _: Backend, max_tokens: int, max_prompt_tokens: int, __: int) -> Iterator[Engine]:
    from kit.llama_cpp.server import ask, running_server

    slots = min(_GGUF_SLOTS_PER_CORE * (os.cpu_count() or 2), _MOST_SLOTS)
    with running_server(Path(artefact.path), slots, context_per_slot=max_prompt_tokens + max_tokens) as address:

        def generate(prompts: list[Messages], temperature: float, seed: int) -> Iterator[Finished]:
            pool = ThreadPoolExecutor(slots)
            try:  # a slot that is done takes the next prompt at once; nothing waits for the slowest of a batch
                asked = {
                    pool.submit(ask, address, prompt, max_tokens, temperature, seed + index): index
                    for index, prompt in enumerate(prompts)
                }
                for reply in as_completed(asked):
                    answer = reply.result()
                    yield [(asked[reply], Completion(answer.text, answer.tokens, answer.truncated))]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

        yield Engine(generate)


@contextmanager
def _transformers_engine(
    artefact: Artefact, backend: Backend, max_tokens: int, _: int, batch_size: int
) -> Iterator[Engine]:
    from kit.models.loading import load_for_inference

    hardware.free_card()  # of the artefact before this one
    model, tokenizer = load_for_inference(artefact.path, backend.dtype, artefact.base, load_in_4bit=backend.base_4bit)
    yield engine_of(model, tokenizer, max_tokens, batch_size)


def engine_of(model: Any, tokenizer: Any, max_tokens: int, batch_size: int) -> Engine:
    """The engine of a transformers model that is loaded."""
    import torch

    def generate(prompts: list[Messages], temperature: float, seed: int) -> Iterator[Finished]:
        texts = [tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False) for p in prompts]
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # little padding in each batch
        for start in range(0, len(by_length), batch_size):
            batch = by_length[start : start + batch_size]
            torch.manual_seed(seed + batch[0])
            completions = _generate_batch(model, tokenizer, [texts[i] for i in batch], max_tokens, temperature)
            yield list(zip(batch, completions, strict=True))

    return Engine(generate)


def _generate_batch(
    model: Any, tokenizer: Any, texts: list[str], max_tokens: int, temperature: float
) -> list[Completion]:
    """Completions of one batch of rendered prompts, padded on the left."""
    import torch

    tokenizer.padding_side = "left"
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    ends = _ends_of_turn(model, tokenizer)
    with torch.inference_mode():
        output = model.generate(
            **batch, max_new_tokens=max_tokens, do_sample=temperature > 0, temperature=temperature or None,
            top_p=None, top_k=0 if temperature else None, repetition_penalty=1.0, eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    completions = []
    for ids in output[:, batch["input_ids"].shape[1] :].tolist():
        length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        text = tokenizer.decode(ids[:length], skip_special_tokens=True)
        completions.append(Completion(text, min(length + 1, len(ids)), truncated=length == len(ids)))
    return completions


def _ends_of_turn(model: Any, tokenizer: Any) -> list[int]:
    """All tokens that end a reply: the tokenizer's, and the model's own, at which vLLM and llama.cpp stop too."""
    own = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None})


@contextmanager
def _vllm_engine(
    artefact: Artefact, backend: Backend, max_tokens: int, max_prompt_tokens: int, batch_size: int
) -> Iterator[Engine]:
    hardware.free_card()  # of the artefact before this one
    machine = hardware.detect()
    for name, value in vllm_environment(machine).items():
        os.environ.setdefault(name, value)
    weights = sixteen_bit_name(artefact.base) if artefact.base else artefact.path
    print(f"{artefact.name}: vLLM loads it and compiles, which can take some minutes", flush=True)
    try:
        import vllm
        from vllm import LLM, SamplingParams
        from vllm.lora.request import LoRARequest

        options: dict[str, Any] = {}
        request = None
        if artefact.kind is Kind.ADAPTER:
            rank = next(rank for rank in _VLLM_RANKS if rank >= lora_rank(Path(artefact.path)))
            options = {"enable_lora": True, "max_lora_rank": rank, "tokenizer": artefact.path}
            if Version("0.19") <= Version(vllm.__version__) < Version("0.26"):
                options["enforce_eager"] = True  # compiled, LoRA fails there: vllm-project/vllm#42543
            request = LoRARequest("adapter", 1, artefact.path)
        llm = LLM(
            model=weights, dtype=backend.dtype, max_model_len=max_prompt_tokens + max_tokens,
            gpu_memory_utilization=_vllm_share(machine), generation_config="vllm", **options,
        )  # fmt: skip
        ends = _ends_of_folder(weights)  # generation_config="vllm" leaves these out with all that it says
    except Exception as error:  # vLLM, its kernels and the driver each have their own kinds
        traceback.clear_frames(error.__traceback__)  # they hold on to half an engine
        raise VllmNotLoaded(f"vLLM could not be loaded for {artefact.name} ({first_line(error)})") from error

    def generate(prompts: list[Messages], temperature: float, seed: int) -> Iterator[Finished]:
        step = _VLLM_BATCHES_IN_FLIGHT * batch_size
        for start in range(0, len(prompts), step):
            batch = prompts[start : start + step]
            sampling = [
                SamplingParams(
                    temperature=temperature, max_tokens=max_tokens, seed=seed + start + offset, stop_token_ids=ends
                )
                for offset in range(len(batch))
            ]
            finished = []
            for index, output in enumerate(llm.chat(batch, sampling, use_tqdm=False, lora_request=request), start):
                reply = output.outputs[0]
                cut_off = reply.finish_reason == "length"
                finished.append((index, Completion(reply.text, len(reply.token_ids), cut_off)))
            yield finished

    try:
        yield Engine(generate)
    finally:
        llm.llm_engine.engine_core.shutdown()  # the next artefact needs the card's memory


def _ends_of_folder(model: str) -> list[int]:
    """What the model's own settings end a reply with, besides the tokenizer's; vLLM has fetched the folder by now."""
    try:
        return ends_of_turn(local_folder(model))
    except UserError:
        return []


def vllm_environment(machine: hardware.Machine) -> dict[str, str]:
    """What keeps vLLM from compiling kernels with a CUDA toolkit, which few machines have; training gets it by Unsloth.

    Without top-k and top-p torch's own sampler is as fast. Which attention runs before 8.0, vLLM 0.11 reads here. Some
    fifty lines of an engine's own log, for every artefact, hide what the kit says: from warnings on it is shown.
    """
    older = {} if machine.capability >= hardware.BFLOAT16_CAPABILITY else {"VLLM_ATTENTION_BACKEND": "TRITON_ATTN"}
    return {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_LOGGING_LEVEL": "WARNING", **older}


def _vllm_share(machine: hardware.Machine) -> float:
    """The share of the whole card that vLLM is given."""
    return min(_VLLM_MEMORY_SHARE, max(0.1, (machine.free_gib - _VLLM_SPARED_GIB) / machine.memory_gib))
