"""What is written down while training runs: metrics.jsonl, samples.jsonl, and a progress bar.

``RunLog.watch`` wraps the reward functions, because they are where every completion passes by; ``RunLog.callback`` is
what TRL's trainer calls at the end of each step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kit.grading import gold_answer, is_correct, strict_answer
from kit.progress import Progress, progress
from kit.prompts import parse_reply
from kit.runs import RunFolder, append_jsonl

# name in metrics.jsonl → name in TRL's log
_FROM_TRL = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "groups_without_spread": "frac_reward_zero_std",
    "completion_length": "completions/mean_length",
    "truncated_rate": "completions/clipped_ratio",
    "entropy": "entropy",
    "kl": "kl",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "seconds": "step_time",
}


class RunLog:
    """Collects the completions of a step and writes one line a step.

    Args:
        run: the run folder that the files go to.
        max_steps: how many steps the run has, for the time left.
        sample_every: steps between two entries of samples.jsonl.
        done: steps that an earlier part of the run has behind it.
    """

    def __init__(self, run: RunFolder, max_steps: int, sample_every: int, done: int = 0) -> None:
        self.run, self.max_steps, self.sample_every, self.done = run, max_steps, sample_every, done
        self._bar: Progress | None = None
        self._questions: list[str] = []
        self._golds: list[str] = []
        self._replies: list[str] = []
        self._rewards: dict[str, list[float | None]] = {}
        self._of_batch: dict[str, Any] = {}

    def watch(self, reward: Callable[..., list[float | None]]) -> Callable[..., list[float | None]]:
        """The same reward function, which also leaves its completions and results here."""

        @functools.wraps(reward)
        def watched(*, prompts, completions, answer, **columns):
            results = reward(prompts=prompts, completions=completions, answer=answer, **columns)
            self._questions = [prompt[-1]["content"] for prompt in prompts]
            self._replies = [completion[-1]["content"] for completion in completions]
            self._golds = list(answer)
            self._rewards[reward.__name__] = list(results)
            return results

        return watched

    @contextmanager
    def showing_progress(self) -> Iterator[None]:
        """Show a progress bar while the ``with`` block trains; it is gone whatever happens."""
        with progress("training", self.max_steps, self.done) as self._bar:
            yield

    def callback(self):
        """The trainer callback that writes the files and moves the progress bar."""
        from transformers import TrainerCallback

        log = self

        class WriteDown(TrainerCallback):
            def on_log(self, args, state, control, logs=None, **_):
                if logs and "loss" in logs:  # the summary at the end has none
                    metrics = log.write_step(state.global_step, logs)
                    if log._bar:
                        log._bar.advance(note=_one_line(metrics))

        return WriteDown()

    def write_step(self, step: int, logs: dict[str, Any]) -> dict[str, Any]:
        """Append the line of ``step`` to metrics.jsonl and, when due, its completions to samples.jsonl."""
        verdicts = [
            is_correct(strict_answer(reply), gold_answer(gold))
            for reply, gold in zip(self._replies, self._golds, strict=True)
        ]
        metrics: dict[str, Any] = {"step": step}
        known = {name: logs[key] for name, key in _FROM_TRL.items() if key in logs}
        if "reward" in known:
            self._of_batch = known
        # with num_iterations above 1 a batch is learned from again: TRL says nothing of its rewards then
        metrics |= self._of_batch | known
        metrics["format_rate"] = _mean([parse_reply(reply).soft for reply in self._replies])
        metrics["correct_rate"] = _mean(verdicts)
        metrics["rewards"] = {name: _mean(results) for name, results in self._rewards.items()}
        append_jsonl(self.run.metrics_file, metrics)
        if step % self.sample_every == 0 or step == 1:
            append_jsonl(self.run.samples_file, *self._samples(step))
        return metrics

    def _samples(self, step: int) -> list[dict[str, Any]]:
        columns = zip(self._questions, self._golds, self._replies, strict=True)
        return [
            {
                "step": step,
                "question": question,
                "gold": gold,
                "reply": reply,
                "rewards": {name: results[index] for name, results in self._rewards.items()},
            }
            for index, (question, gold, reply) in enumerate(columns)
        ]


def _mean(values: list[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def _one_line(metrics: dict[str, Any]) -> str:
    return (
        f"reward {metrics['reward']:.2f}  in format {metrics['format_rate']:.0%}  correct {metrics['correct_rate']:.0%}"
        f"  {metrics['completion_length']:.0f} tokens"
    )
