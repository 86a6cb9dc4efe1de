"""The first step on a card: the longest prompt at full completion length, so that memory runs out now or never.

A step of TRL's own trainer with hardly a learning rate and rewards that are all the same. It changes no weight, writes
nothing down, and puts the random states back, so that the run after it is the run without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kit import ranks
from kit.cli.errors import first_line
from kit.cli.machine_failures import is_lost, is_out_of_memory
from kit.planning.memory_now import free_card
from kit.training.random_states import same_random_numbers
from kit.training.trainer import build_trainer, forget_reference


def rehearse(arguments: dict[str, Any], policy: Any, tokenizer: Any, dataset: Any) -> None:
    """Take one step with the policy at the size of the largest that can come.

    What goes wrong in it, other than memory running out, is said and stops nothing: the run itself will show it.

    Args:
        arguments: the fields of GRPOConfig that the run will have.
        policy: the model with its adapter.
        tokenizer: the model's.
        dataset: rows with a ``prompt``, of which the longest is taken.

    Raises:
        Exception: memory ran out, in the words of whichever library noticed.
    """
    print("first a step at full length, which changes nothing: memory runs out now or not at all", flush=True)
    try:
        with same_random_numbers(), _adapter_kept(policy):
            _take_step(arguments, policy, tokenizer, dataset)
    except Exception as error:  # torch, vLLM and TRL each have their own kinds
        if is_out_of_memory(error) or is_lost(error) or ranks.count() > 1:  # the others are in the middle of it
            raise
        print(f"that step could not be taken ({first_line(error)}): going on without it")
    free_card()


def _take_step(arguments: dict[str, Any], policy: Any, tokenizer: Any, dataset: Any) -> None:
    texts = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False) for row in dataset
    ]
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    longest = dataset[lengths.index(max(lengths))]
    share = arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"]
    least = "min_tokens" if arguments["use_vllm"] else "min_new_tokens"
    rehearsal = arguments | {
        "max_steps": 1,
        "report_to": "none",
        "learning_rate": 1e-7,  # the weights are put back anyway; Unsloth complains of less
        "reward_weights": [1.0],
        "generation_kwargs": {
            **(arguments.get("generation_kwargs") or {}),
            least: arguments["max_completion_length"],
        },
    }
    rows = dataset.from_list([longest] * (share * ranks.count()))
    build_trainer(rehearsal, policy, tokenizer, rows, [_the_same_for_all], []).train()


def _the_same_for_all(completions: list[Any], **_: Any) -> list[float]:
    return [0.0] * len(completions)


@contextmanager
def _adapter_kept(policy: Any) -> Iterator[None]:
    """Leave the adapter as it was: the trainer rounds it to 16 bits, and with a KL term adds a frozen copy of it."""
    before = {name: weight.detach().clone() for name, weight in policy.named_parameters() if weight.requires_grad}
    try:
        yield
    finally:
        for name, weight in policy.named_parameters():
            if name in before:
                weight.data = before[name]
        forget_reference(policy)  # the real trainer makes its own
        policy.zero_grad(set_to_none=True)
