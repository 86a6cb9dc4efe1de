"""What is written down while training runs: metrics.jsonl, samples.jsonl, and what the console shows.

``RunLog.recording`` wraps the reward functions, because they are where every completion passes by; ``RunLog.callback``
is what TRL's trainer calls at the end of each step.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, cast

from kit import ranks
from kit.cli.errors import first_line
from kit.planning.memory_now import taken_gib
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder, append_jsonl, read_jsonl
from kit.storage.run_rows import HeldOutRow, StepRow
from kit.task.user_rewards import RewardFunction
from kit.training.alarms import Alarm, AlarmMonitor, Step
from kit.training.console import Console
from kit.training.rollout_batch import RolloutBatch, as_logged, measured

REPORT_SECONDS = 60  # between two writings of report.html while training


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
        self._monitor = AlarmMonitor(maxima or {}, run.steps())
        scores = [row["heldout"] for row in read_jsonl(run.metrics_file) if not row["step"]]
        self._base: HeldOutRow | None = scores[0] if scores else None
        self._held_out: tuple[HeldOutRow, list[Alarm]] | None = None
        self._reported_at = time.monotonic()
        self._batch = RolloutBatch()
        self._logged_of_batch: dict[str, Any] = {}

    def recording(self, reward: RewardFunction) -> RewardFunction:
        """The same reward function, which also leaves its completions and results here."""

        @functools.wraps(reward)
        def recorded(*, completions, question, answer, **columns):
            results = ranks.together(
                lambda: reward(completions=completions, question=question, answer=answer, **columns)
            )
            replies = [completion[-1]["content"] for completion in completions]
            # the checked answers, as kit/task/reward_columns.py passes them; of each process, groups in TRL's order
            shares = ranks.gathered((list(question), replies, list(answer), list(results)))
            batch = self._batch
            batch.questions, batch.replies, batch.golds, batch.rewards[reward.__name__] = (
                [value for share in shares for value in share[column]] for column in range(4)
            )
            return results

        return recorded

    def callback(self):
        """The trainer callback that writes the files and shows the step."""
        from transformers import TrainerCallback

        log = self

        class WriteDown(TrainerCallback):
            def __init__(self) -> None:
                self.state: dict[str, Any] = {}

            def on_train_begin(self, args, state, control, **_):
                log.begin()

            def on_step_end(self, args, state, control, model=None, optimizer=None, **_):
                skipped = bool(getattr(optimizer, "step_was_skipped", False))
                self.state = {"adapter_norm": _adapter_norm(model), "memory_gib": round(taken_gib(), 2)}
                self.state |= {"skipped": True} if skipped else {}

            def on_log(self, args, state, control, logs=None, **_):
                if logs and "loss" in logs:  # the summary at the end has none
                    log.write_step(state.global_step, {**logs, **self.state})

        return WriteDown()

    def begin(self) -> None:
        """Training begins now; the time left counts from here."""
        self._console.begin()

    def take_held_out(self, step: int, score: HeldOutRow, alarms: list[Alarm]) -> None:
        """The held-out score of the policy after ``step``: shown now, written down with the step's line.

        Before the first step that is the base's, and after a warm start another one.
        """
        self._console.held_out(score, self._base)
        if step:
            self._held_out = (score, alarms)
            return
        row: StepRow = {"step": 0, "heldout": score}
        if self._base:
            row["warm_start"] = True
        else:
            self._base = score
        for alarm in alarms:
            self._console.alarm(alarm)
        append_jsonl(self.run.metrics_file, row | _as_rows(alarms))

    def write_step(self, step: int, logs: dict[str, Any]) -> StepRow:
        """Append the line of ``step`` to metrics.jsonl and, when due, its completions to samples.jsonl, and show it."""
        logged = as_logged(logs)
        metrics: StepRow = {"step": step}
        if "reward" in logged:
            self._logged_of_batch = logged
        else:  # with num_iterations above 1 a batch is learned from again: TRL says nothing of its rewards then
            metrics["again"] = True
        metrics |= cast(StepRow, self._logged_of_batch | logged | measured(self._batch))
        batch = self._batch
        alarms = self._monitor.check(Step(metrics, batch.questions, batch.replies, batch.rewards))
        if self._held_out:
            metrics["heldout"], worse = self._held_out
            alarms, self._held_out = [*alarms, *worse], None
        metrics |= _as_rows(alarms)
        append_jsonl(self.run.metrics_file, metrics)
        if step % self.settings.sample_every == 0 or step == 1:
            append_jsonl(self.run.samples_file, *batch.samples(step))
        self._show(metrics, alarms)
        return metrics

    def _show(self, metrics: StepRow, alarms: list[Alarm]) -> None:
        self._console.step(metrics)
        for alarm in alarms:
            self._console.alarm(alarm)
        if metrics["step"] % self.settings.show_every == 0:
            samples = self._batch.samples(metrics["step"])
            self._console.sample(metrics["step"], samples[metrics["step"] // self.settings.show_every % len(samples)])
        if time.monotonic() - self._reported_at > REPORT_SECONDS:
            try:
                self._report(self.run)
            except Exception as error:  # a page that cannot be drawn must not end hours of training
                print(f"report.html could not be written ({first_line(error)})")
            self._reported_at = time.monotonic()


def _as_rows(alarms: list[Alarm]) -> StepRow:
    return {"alarms": [{"name": alarm.name, "says": alarm.sentence} for alarm in alarms]} if alarms else {}


def _adapter_norm(model: Any) -> float:
    """The length of the adapter's second matrices, which begin at zero, as one vector."""
    import torch

    weights = [w.detach() for name, w in model.named_parameters() if "lora_B" in name and w.requires_grad]
    return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(weights)))) if weights else 0.0
