"""What is written down while training runs: metrics.jsonl, samples.jsonl, and a progress bar.

``RunLog.watch`` wraps the reward functions, because they are where every completion passes by; ``RunLog.callback`` is
what TRL's trainer calls at the end of each step.
"""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

from kit.cli.errors import first_line
from kit.grading import gold_answer, is_correct, strict_answer
from kit.prompts import parse_reply
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder, append_jsonl, read_jsonl
from kit.task.user_rewards import RewardFunction
from kit.training.alarms import Alarm, Step, Watcher
from kit.training.console import Console

REPORT_SECONDS = 60  # between two writings of report.html while training

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
    "sampling_difference": "sampling/sampling_logp_difference/mean",  # between vLLM and the trainer, nats a token
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "seconds": "step_time",
    "adapter_norm": "adapter_norm",
    "skipped": "skipped",
}


class RunLog:
    """Collects the completions of a step, writes one line a step, and says what is to be seen.

    Args:
        run: the run folder that the files go to.
        settings: for the number of steps, and how often samples are kept and shown.
        done: steps that an earlier part of the run has behind it.
        maxima: the most that reward functions can pay, where it is known.
        report: called with the run folder every minute, to write its page anew.
    """

    def __init__(
        self,
        run: RunFolder,
        settings: Settings,
        done: int = 0,
        maxima: dict[str, float] | None = None,
        report: Callable[[RunFolder], object] = lambda _: None,
    ) -> None:
        self.run, self.settings, self._report = run, settings, report
        self._console = Console(settings.max_steps, done)
        self._watcher = Watcher(maxima or {}, read_jsonl(run.metrics_file))
        self._reported_at = time.monotonic()
        self._questions: list[str] = []
        self._golds: list[str] = []
        self._replies: list[str] = []
        self._rewards: dict[str, list[float | None]] = {}
        self._of_batch: dict[str, Any] = {}

    def watch(self, reward: RewardFunction) -> RewardFunction:
        """The same reward function, which also leaves its completions and results here."""

        @functools.wraps(reward)
        def watched(*, completions, question, answer, **columns):
            results = reward(completions=completions, question=question, answer=answer, **columns)
            self._questions = list(question)
            self._replies = [completion[-1]["content"] for completion in completions]
            self._golds = list(answer)  # the checked values, as kit/task/reward_columns.py passes them
            self._rewards[reward.__name__] = list(results)
            return results

        return watched

    def callback(self):
        """The trainer callback that writes the files and shows the step."""
        from transformers import TrainerCallback

        log = self

        class WriteDown(TrainerCallback):
            def __init__(self) -> None:
                self.state_of_adapter: dict[str, Any] = {}

            def on_train_begin(self, args, state, control, **_):
                log.begin()

            def on_step_end(self, args, state, control, model=None, optimizer=None, **_):
                skipped = bool(getattr(optimizer, "step_was_skipped", False))
                self.state_of_adapter = {"adapter_norm": _adapter_norm(model)} | ({"skipped": True} if skipped else {})

            def on_log(self, args, state, control, logs=None, **_):
                if logs and "loss" in logs:  # the summary at the end has none
                    log.write_step(state.global_step, {**logs, **self.state_of_adapter})

        return WriteDown()

    def begin(self) -> None:
        """Training begins now; the time left counts from here."""
        self._console.begin()

    def write_step(self, step: int, logs: dict[str, Any]) -> dict[str, Any]:
        """Append the line of ``step`` to metrics.jsonl and, when due, its completions to samples.jsonl, and show it."""
        verdicts = [
            is_correct(strict_answer(reply), gold_answer(gold))
            for reply, gold in zip(self._replies, self._golds, strict=True)
        ]
        metrics: dict[str, Any] = {"step": step}
        known = {name: _finite(logs[key]) for name, key in _FROM_TRL.items() if key in logs}
        if "reward" in known:
            self._of_batch = known
        else:  # with num_iterations above 1 a batch is learned from again: TRL says nothing of its rewards then
            metrics["again"] = True
        metrics |= self._of_batch | known
        metrics["format_rate"] = _mean([parse_reply(reply).soft for reply in self._replies])
        metrics["correct_rate"] = _mean(verdicts)
        metrics["rewards"] = {name: _mean(results) for name, results in self._rewards.items()}
        metrics["rewards_std"] = {name: _std(results) for name, results in self._rewards.items()}
        alarms = self._watcher.look(Step(metrics, self._questions, self._replies, self._rewards))
        if alarms:
            metrics["alarms"] = [{"name": alarm.name, "says": alarm.sentence} for alarm in alarms]
        append_jsonl(self.run.metrics_file, metrics)
        if step % self.settings.sample_every == 0 or step == 1:
            append_jsonl(self.run.samples_file, *self._samples(step))
        self._show(metrics, alarms)
        return metrics

    def _show(self, metrics: dict[str, Any], alarms: list[Alarm]) -> None:
        self._console.step(metrics)
        for alarm in alarms:
            self._console.alarm(alarm)
        if metrics["step"] % self.settings.show_every == 0:
            samples = self._samples(metrics["step"])
            self._console.sample(metrics["step"], samples[metrics["step"] // self.settings.show_every % len(samples)])
        if time.monotonic() - self._reported_at > REPORT_SECONDS:
            try:
                self._report(self.run)
            except Exception as error:  # a page that cannot be drawn must not end hours of training
                print(f"report.html could not be written ({first_line(error)})")
            self._reported_at = time.monotonic()

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


def _std(values: list[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return round(statistics.pstdev(known), 4) if known else None


def _finite(value: float | None) -> float | None:
    """NaN and infinity are no JSON; TRL's own ``None`` says that no reward could judge."""
    return value if value is not None and math.isfinite(value) else None


def _adapter_norm(model: Any) -> float:
    """The length of the adapter's second matrices, which begin at zero, as one vector."""
    import torch

    weights = [w.detach() for name, w in model.named_parameters() if "lora_B" in name and w.requires_grad]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(weights)))) if weights else 0.0
