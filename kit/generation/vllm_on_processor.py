"""vLLM's processor build, in this process: one engine that is given new weights instead of being started anew.

A start takes twenty seconds, new weights for 0.5B parameters one. The engine is not compiled, which was not faster; one
random stream draws for all rows, since a seed for each request makes an exponential of every vocabulary entry of every
row, and halves the rate.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kit.cli.errors import UserError
from kit.planning.engine_choice import PROCESSOR_ENVIRONMENT
from kit.planning.hardware import detect
from kit.planning.model_shape import model_shape
from kit.planning.processor_memory import answering_gib
from kit.storage.hub import local_folder

# Of config.json: what two folders of one architecture may differ in.
_NO_SHAPE = {
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "pad_token_id",
    "unsloth_fixed",
    "unsloth_version",
}

if TYPE_CHECKING:
    import torch


def load(model: str, dtype: str, max_length: int, sequences: int, seed: int = 0, logprobs: str = "raw") -> Any:
    """An engine for a model folder.

    Args:
        model: folder or Hub id that says the architecture and has the tokenizer.
        dtype: in which it computes.
        max_length: of a prompt and its completion, in tokens.
        sequences: completions at once.
        seed: of the stream that all completions are drawn with.
        logprobs: ``raw``, the model's own, or ``processed``, of the distribution that was drawn from.
    """
    for name, value in PROCESSOR_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _torch_untouched(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between its own parts
        from vllm import LLM

        return LLM(
            model=model, dtype=dtype, max_model_len=max_length, max_num_seqs=sequences, enforce_eager=True, seed=seed,
            generation_config="vllm", logprobs_mode=f"{logprobs}_logprobs",
            max_num_batched_tokens=max(4096, max_length), use_tqdm_on_load=False,
        )  # fmt: skip


_kept: dict[tuple[str, str, int, int], Any] = {}


def kept(model: str, dtype: str, max_length: int, sequences: int) -> Any:
    """An engine for a model of this architecture and size of work: the last one, if it is such, or a new one.

    Raises:
        UserError: a new one does not fit the memory that is free.
    """
    config = json.loads((local_folder(model) / "config.json").read_text(encoding="utf-8"))
    shape = json.dumps({name: value for name, value in config.items() if name not in _NO_SHAPE}, sort_keys=True)
    key = (shape, dtype, max_length, sequences)
    if key not in _kept:
        close_kept()
        _check_memory(model, dtype, sequences)
        print("vLLM loads, which takes half a minute", flush=True)
        _kept[key] = load(model, dtype, max_length, sequences)
    return _kept[key]


def _check_memory(model: str, dtype: str, sequences: int) -> None:
    try:
        needed, free = answering_gib(model_shape(model), dtype, sequences), detect().free_gib
    except UserError:  # of an architecture that the plan does not know
        return
    if needed > free:
        smaller = "" if dtype == "bfloat16" else "; --dtype bfloat16 takes less"
        raise UserError(f"it needs {needed:.1f} GiB and {free:.1f} are free{smaller}")


def close_kept() -> None:
    """Give back what a kept engine holds."""
    while _kept:
        close(_kept.popitem()[1])


@contextlib.contextmanager
def _torch_untouched() -> Iterator[None]:
    """vLLM's start sets torch's threads and its own default number type; what trains beside it keeps its own."""
    import torch

    dtype = torch.get_default_dtype()
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def push(llm: Any, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Give the engine new weights, under Hugging Face's names; what it remembers of prompts goes with the old ones."""
    llm.llm_engine.model_executor.driver_worker.worker.model_runner.reload_weights(weights_iterator=weights)
    llm.reset_prefix_cache()


def close(llm: Any) -> None:
    """Give back what the engine holds."""
    with contextlib.suppress(Exception):  # it is going anyway
        llm.llm_engine.engine_core.shutdown()
