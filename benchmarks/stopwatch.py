"""Where the time of a GRPO step goes: generation, forward and backward passes, rewards, and everything else."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

WARM_UP_STEPS = 2  # at the start, not counted
# The trainer's methods that send tokens through the model.
PASSES = ("_get_per_token_logps_and_entropies", "compute_loss")


class Stopwatch:
    """Seconds of each part, step by step, and how many tokens were written."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.parts: list[dict[str, float]] = []  # so far, at the end of each step
        self.tokens: list[int] = []
        self._so_far = {"generation": 0.0, "forward_and_backward": 0.0, "rewards": 0.0}
        self._written = 0
        self._busy = threading.local()

    def count_tokens(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        """A reward of no weight: TRL tells every reward function which tokens were written."""
        self._written += sum(map(len, completion_ids))
        return [0.0] * len(completion_ids)

    def watch(self, trainer: Any) -> None:
        """Time what a trainer does, whichever engine writes the completions."""
        holders = [
            (getattr(trainer.model, "vllm_engine", None), "generate"),
            (getattr(getattr(trainer, "vllm_generation", None), "llm", None), "generate"),
            (trainer.model, "generate"),
        ]
        for holder, name in {id(holder): (holder, name) for holder, name in holders}.values():  # two may be one engine
            if holder is not None:
                self._time(holder, name, "generation")
        for name in PASSES:
            self._time(trainer, name, "forward_and_backward")
        self._time(trainer.accelerator, "backward", "forward_and_backward")
        self._time(trainer, "_calculate_rewards", "rewards")

    def _time(self, holder: Any, name: str, part: str) -> None:
        """Time a method; what it calls counts as the same part."""
        method: Callable[..., Any] = getattr(holder, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if getattr(self._busy, "now", False):
                return method(*args, **kwargs)
            self._busy.now, started = True, time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._busy.now = False
                self._so_far[part] += time.perf_counter() - started

        setattr(holder, name, timed)

    def callback(self, max_steps: int) -> Any:
        """What has the trainer say when a step ends."""
        from transformers import TrainerCallback

        watch = self

        class StepEnds(TrainerCallback):
            def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
                watch.ends.append(time.perf_counter())
                watch.parts.append(dict(watch._so_far))
                watch.tokens.append(watch._written)
                print(f"step {state.global_step}/{max_steps}", file=sys.stderr, flush=True)

        return StepEnds()

    def figures(self) -> dict[str, Any]:
        """Medians over the steps after the warm-up in seconds, shares of a step, and tokens a second of generation."""
        counted = range(WARM_UP_STEPS, len(self.ends))
        seconds = [self.ends[i] - self.ends[i - 1] for i in counted]
        spent = {part: [self.parts[i][part] - self.parts[i - 1][part] for i in counted] for part in self._so_far}
        spent["everything_else"] = [whole - sum(parts) for whole, *parts in zip(seconds, *spent.values(), strict=True)]
        generation = sum(spent["generation"])
        written = self.tokens[-1] - self.tokens[WARM_UP_STEPS - 1]
        return {
            "seconds_a_step": statistics.median(seconds),
            "seconds_of_generation": statistics.median(spent["generation"]),
            "shares": {part: sum(values) / sum(seconds) for part, values in spent.items()},
            "rollout_tokens_a_second": written / generation if generation else None,
            "steps": [round(second, 3) for second in seconds],
        }
