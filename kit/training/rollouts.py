"""Rollouts through vLLM where no card is: TRL's colocated engine, loaded and given its weights the processor's way."""

from __future__ import annotations

from typing import Any

from kit import ranks
from kit.generation import vllm_on_processor
from kit.models.policy_weights import policy_weights
from kit.planning.engine_choice import VllmNotLoaded, did_not_load


def use_vllm_on_processor(seed: int, dtype: str) -> None:
    """Have TRL's trainers, from now on in this process, take vLLM's processor build.

    TRL loads the base's weights and hands over each tensor by the model's ``load_weights``; on a processor vLLM has
    repacked its weights by then, and of a base in 4 bits it would hand over packed bytes. Here all weights, the base's
    and the adapter's merged, go through vLLM's own ``reload_weights``. All else is TRL's.

    Args:
        seed: of the stream that all completions are drawn with; each process of a run has its own.
        dtype: in which it computes, the trainer's own: where bfloat16 is emulated it takes 70 times as long.
    """
    from trl.generation.vllm_generation import VLLMGeneration
    from trl.trainer import grpo_trainer

    class OnProcessor(VLLMGeneration):
        def _init_vllm(self) -> None:
            base = self.model.get_base_model().name_or_path
            try:
                self.llm: Any = vllm_on_processor.load(
                    base, dtype, self.max_model_length, self.max_num_seqs, seed + ranks.rank(), logprobs="processed"
                )
            except Exception as error:  # vLLM and its kernels each have their own kinds
                raise VllmNotLoaded(did_not_load(error)) from error
            self._llm_weights_sleeping = False

        def sync_weights(self) -> None:
            vllm_on_processor.push(self.llm, policy_weights(self.model))

    grpo_trainer.VLLMGeneration = OnProcessor
