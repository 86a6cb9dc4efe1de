"""vLLM on a card writes the completions: of a model folder, of an adapter by request, or of the policy in training."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from packaging.version import Version

from kit.generation.artefacts import Artefact, Kind, lora_rank
from kit.generation.engine import Conversation, Engine, Finished, Sampling
from kit.generation.runtime import Room, Runtime
from kit.generation.vllm_requests import SCHEDULED_TOGETHER, as_tokens, completion, ends_of_folder
from kit.models.merged_tensors import check_goes_with
from kit.planning import hardware
from kit.planning.engine_choice import CARD_ENVIRONMENT, VllmNotLoaded, did_not_load
from kit.planning.memory_now import free_card
from kit.storage.generation_settings import all_ends

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that vLLM makes room for
_NO_OTHER_FRAMEWORKS = {"USE_TF": "0", "USE_FLAX": "0"}  # which transformers 4 loads where it finds them, as on Colab
_MEMORY_SHARE = 0.8  # of the whole card, or less:
_SPARED_GIB = 1.3  # vLLM refuses a share that is not free; its CUDA context and its graphs are outside of it
_SMALL_GIB = 13


@contextmanager
def open_vllm(artefact: Artefact, runtime: Runtime, room: Room) -> Iterator[Engine]:
    """The engine of a folder.

    Raises:
        UserError: an adapter does not go with its base.
        VllmNotLoaded: for whatever other reason.
    """
    free_card()  # of the artefact before this one
    machine = hardware.detect()
    for name, value in (_NO_OTHER_FRAMEWORKS | vllm_environment(machine)).items():
        os.environ.setdefault(name, value)
    weights = artefact.base or artefact.path
    if artefact.kind is Kind.ADAPTER:
        check_goes_with(Path(artefact.path), weights)
    print(f"{artefact.name}: vLLM loads it and compiles, which can take some minutes", flush=True)
    try:
        import vllm
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        options: dict[str, Any] = {}
        request = None
        if artefact.kind is Kind.ADAPTER:
            rank = next(rank for rank in _RANKS if rank >= lora_rank(Path(artefact.path)))
            options = {"enable_lora": True, "max_lora_rank": rank, "tokenizer": artefact.path}
            if Version("0.19") <= Version(vllm.__version__) < Version("0.26"):
                options["enforce_eager"] = True  # compiled, LoRA fails there: vllm-project/vllm#42543
            request = LoRARequest("adapter", 1, artefact.path)
        llm = LLM(
            model=weights, dtype=runtime.dtype, max_model_len=room.tokens,
            generation_config="vllm", **_within(machine, room), **options,
        )  # fmt: skip
        ends = ends_of_folder(weights)  # generation_config="vllm" leaves these out with all that it says
    except Exception as error:  # vLLM, its kernels and the driver each have their own kinds
        traceback.clear_frames(error.__traceback__)  # they hold on to half an engine
        raise VllmNotLoaded(did_not_load(error, artefact.name)) from error
    try:
        yield _Vllm(llm, llm.get_tokenizer(), lambda: nullcontext(request), ends, SCHEDULED_TOGETHER * room.batch_size)
    finally:
        llm.llm_engine.engine_core.shutdown()  # the next artefact needs the card's memory


def engine_of_policy(policy: Any, tokenizer: Any, batch_size: int) -> Engine:
    """The vLLM that Unsloth loaded on a card beside a policy: its base with the policy's adapter as it is at each call.

    Where vLLM gives its memory back between rollouts, it wakes up for a call, and sleeps again after it.
    """

    @contextmanager
    def awake() -> Iterator[Any]:
        llm = policy.vllm_engine
        try:
            with tempfile.TemporaryDirectory() as folder:  # for a config; the weights are handed over in memory
                yield policy.load_lora(folder, load_tensors=True)
        finally:
            if llm.llm_engine.vllm_config.model_config.enable_sleep_mode:
                llm.sleep(level=2)  # as TRL leaves it; Unsloth wakes it up in ``generate``

    ends = all_ends(tokenizer, policy.generation_config.eos_token_id)
    return _Vllm(policy.vllm_engine, tokenizer, awake, ends, SCHEDULED_TOGETHER * batch_size)


class _Vllm:
    """``adapter`` is entered for each call to vLLM, and gives its request, or ``None`` for the weights as they are."""

    def __init__(
        self, llm: Any, tokenizer: Any, adapter: Callable[[], AbstractContextManager[Any]], ends: list[int],
        in_flight: int,
    ) -> None:  # fmt: skip
        self._llm, self._tokenizer, self._adapter = llm, tokenizer, adapter
        self._ends, self._in_flight = ends, in_flight

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[Finished]:
        for start in range(0, len(conversations), self._in_flight):
            batch = [as_tokens(self._tokenizer, messages) for messages in conversations[start:][: self._in_flight]]
            each = [self._parameters(sampling, start + offset) for offset in range(len(batch))]
            with self._adapter() as request:
                replies = self._llm.generate(batch, each, use_tqdm=False, lora_request=request)
            yield list(enumerate((completion(reply.outputs[0]) for reply in replies), start))

    def _parameters(self, sampling: Sampling, place: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature, max_tokens=sampling.max_tokens, seed=sampling.seed + place,
            stop_token_ids=self._ends, logprobs=0 if sampling.logprobs else None,
        )  # fmt: skip


def vllm_environment(machine: hardware.Machine) -> dict[str, str]:
    """What keeps vLLM from compiling kernels with a CUDA toolkit, which few machines have; training gets it by Unsloth.

    Without top-k and top-p torch's own sampler is as fast as FlashInfer's. vLLM 0.11 reads here which attention to use
    on cards before compute capability 8.0.
    """
    older = {} if machine.capability >= hardware.BFLOAT16_CAPABILITY else {"VLLM_ATTENTION_BACKEND": "TRITON_ATTN"}
    return CARD_ENVIRONMENT | {"VLLM_USE_FLASHINFER_SAMPLER": "0", **older}


def _within(machine: hardware.Machine, room: Room) -> dict[str, Any]:
    """The share of the whole card that vLLM is given; on a small one also how much it may do at a time, for its
    defaults, 256 sequences and 8,192 tokens, are for large ones, and its CUDA graphs come on top of the share."""
    share = min(_MEMORY_SHARE, max(0.1, (machine.free_gib - _SPARED_GIB) / machine.memory_gib))
    within = {"gpu_memory_utilization": share}
    if machine.memory_gib < _SMALL_GIB:
        within |= {"max_num_seqs": room.batch_size, "max_num_batched_tokens": max(2048, room.tokens)}
    return within
