"""What training shows while it runs: one line a step, now and then a sample reply in a box, and alarms.

rich draws colours on a terminal and plain text elsewhere, notebooks included. What a model wrote is shown as text:
control characters, which could move the cursor or colour the screen, as their pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from kit.cli.text import duration, visible
from kit.storage.run_rows import HeldOutRow, SampleRow
from kit.training.alarms import Alarm


class Console:
    """Prints the steps of a run of ``max_steps``, of which ``done`` lie behind it; ``clock`` gives seconds."""

    def __init__(self, max_steps: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console as Rich

        self.max_steps, self._clock, self._done_before = max_steps, clock, done
        self.begin()
        self._rich = Rich(highlight=False, soft_wrap=True)

    def begin(self) -> None:
        """The first step begins now: what was loaded before it does not come again."""
        self._since, self._steps_then = self._clock(), self._done_before

    def step(self, metrics: Mapping[str, Any]) -> None:
        """One line with the numbers that matter and the time left."""
        number, now = metrics["step"], self._clock()
        seconds_a_step = (now - self._since) / max(1, number - self._steps_then)
        if self._steps_then == self._done_before:  # the first step compiles; those to come are not like it
            self._since, self._steps_then = now, number

        def shown(name: str, form: str) -> str:
            value = metrics.get(name)
            return "?" if value is None else format(value, form)

        kl = f"  KL {shown('kl', '.3f')}" if metrics.get("kl") else ""
        self._rich.print(
            f"{number:>{len(str(self.max_steps))}}/{self.max_steps}  reward {shown('reward', '5.2f')}"
            f"  in format {shown('format_rate', '4.0%')}  correct {shown('correct_rate', '4.0%')}"
            f"  {shown('completion_length', '.0f')} tokens{kl}  {shown('seconds', '.1f')} s"
            f"  {duration(seconds_a_step * (self.max_steps - number))} left",
            markup=False,
        )

    def held_out(self, score: HeldOutRow, base: HeldOutRow | None) -> None:
        """What the policy answers to the questions that were set aside, beside what the base did."""

        def share(name: Literal["strict", "flexible"]) -> str:
            before = "" if base is None else f" (base {base[name]['accuracy']:.0%})"
            return f"{name} {score[name]['accuracy']:.0%}{before}"

        self._rich.print(
            f"  {score['questions']} held-out questions: {share('strict')}  {share('flexible')}"
            f"  in format {score['format_rate']:.0%}  {score['completion_length']:.0f} tokens"
            f"  {score['seconds']:.0f} s",
            markup=False,
        )

    def alarm(self, alarm: Alarm) -> None:
        """An alarm, marked so that it is seen."""
        from rich.text import Text

        self._rich.print(Text.assemble((f"! {visible(alarm.name)}: ", "bold yellow"), visible(alarm.sentence)))

    def sample(self, step: int, sample: SampleRow) -> None:
        """A question, one reply to it, and what it earned, in a box."""
        from rich.panel import Panel
        from rich.text import Text

        earned = "  ".join(f"{name} {value:g}" for name, value in sample["rewards"].items() if value is not None)
        text = Text.assemble(
            (visible(sample["question"]), "bold"), "  (answer: ", visible(sample["gold"]), ")\n\n",
            visible(sample["reply"]), "\n\n", (earned, "cyan"),
        )  # fmt: skip
        self._rich.print(Panel(text, title=f"step {step}, one of its completions", title_align="left"), soft_wrap=False)
