"""The policy as an engine: what writes the rollouts answers the held-out questions too, where that can be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kit.generation.engine import Engine
from kit.generation.processor_engine import engine_on_processor
from kit.generation.transformers_engine import engine_of
from kit.generation.vllm_engine import engine_of_policy


def policy_engine(trainer: Any, tokenizer: Any, batch_size: int) -> Engine:
    """The engine of the policy as it is now: the trainer's vLLM, or the policy itself where that writes the rollouts.

    Args:
        trainer: TRL's, with the policy.
        tokenizer: of the policy.
        batch_size: completions at once.
    """
    policy = trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.args.use_vllm:
        return engine_of(policy, tokenizer, batch_size)
    if hasattr(policy, "vllm_engine"):  # on a card Unsloth loads it, and the policy shares its base weights
        return engine_of_policy(policy, tokenizer, batch_size)
    rollouts = trainer.vllm_generation
    rollouts.sync_weights()
    return engine_on_processor(rollouts.llm, tokenizer, policy.generation_config.eos_token_id)


@contextmanager
def answering(policy: Any) -> Iterator[None]:
    """Evaluation mode for a policy on a processor, in which no activations are recomputed; Unsloth switches a card's
    itself."""
    was = policy.training
    if policy.device.type == "cpu":
        policy.eval()
    try:
        yield
    finally:
        if policy.device.type == "cpu":
            policy.train(was)
