"""How far a long step is, while it goes on: tokens written into its completions, then passes learned from.

On a processor a step takes minutes. Of completions that vLLM writes nothing is said until they are there. What the
policy answers outside a step, such as held-out questions, has a progress bar of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

EVERY_S = 20.0


class StepProgress:
    """Prints a line at most every ``EVERY_S`` seconds of a step; ``clock`` gives seconds."""

    def __init__(self, say: Callable[[str], None] = print, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._step: int | None = None  # that goes on now
        self._began = self._said = clock()

    def begin(self, step: int) -> None:
        """Step number ``step`` begins."""
        self._step, self._began = step, self._clock()
        self._said = self._began

    def end(self) -> None:
        """The step is over."""
        self._step = None

    def note(self, done: str) -> None:
        """Something of the step is done; said if it is time for a line."""
        now = self._clock()
        if self._step is not None and now - self._said >= EVERY_S:
            self._said = now
            self._say(f"  step {self._step}, after {now - self._began:.0f} s: {done}")

    def watch(self, policy: Any, tokenizer: Any) -> None:
        """Count the tokens of ``policy.generate``, and the completions that have come to their end."""
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        progress, ends = self, torch.tensor([tokenizer.eos_token_id, tokenizer.pad_token_id])

        class Counting(StoppingCriteria):
            written = 0

            def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
                self.written += 1
                ended = torch.isin(input_ids[:, -1], ends.to(input_ids.device))
                progress.note(
                    f"{self.written} tokens of each completion written, {int(ended.sum())} of {len(ended)} ended"
                )
                return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

        generate = policy.generate

        @wraps(generate)
        def counted(*args: Any, **kwargs: Any) -> Any:
            given = list(kwargs.pop("stopping_criteria", None) or [])
            return generate(*args, stopping_criteria=StoppingCriteriaList([*given, Counting()]), **kwargs)

        policy.generate = counted

    def callback(self) -> Any:
        """The trainer callback that counts steps and passes."""
        from transformers import TrainerCallback

        progress = self

        class Passes(TrainerCallback):
            def on_step_begin(self, args, state, control, **_):
                self.passes = 0
                progress.begin(state.global_step + 1)

            def on_substep_end(self, args, state, control, **_):
                self.passes += 1
                progress.note(f"learned from {self.passes} of {args.gradient_accumulation_steps} passes")

            def on_step_end(self, args, state, control, **_):
                progress.end()

        return Passes()
