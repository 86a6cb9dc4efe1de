"""Progress with the time left: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

LINES_IN_A_LOG = 10


class Progress:
    """Counts the steps of one long task. Made by ``progress``."""

    def __init__(self, title: str, total: int, done: int, bar) -> None:
        self.title, self.total, self.done, self._bar = title, total, done, bar
        self._started, self._done_before = time.monotonic(), done
        self._task = bar.add_task(title, total=total, completed=done, note="")

    def ends_at(self, total: int) -> None:
        """The task turns out to have ``total`` steps."""
        self.total = total
        self._bar.update(self._task, total=total)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """``steps`` more are done; ``note`` is shown beside the count."""
        before, self.done = self.done, self.done + steps
        self._bar.update(self._task, advance=steps, note=note)
        tenths = (before * LINES_IN_A_LOG // self.total, self.done * LINES_IN_A_LOG // self.total)
        if not self._bar.console.is_terminal and (tenths[0] < tenths[1] or before == self._done_before):
            seconds_a_step = (time.monotonic() - self._started) / (self.done - self._done_before)
            left = seconds_a_step * (self.total - self.done)
            print(f"{self.title}: {self.done}/{self.total}, {left:.0f} s left  {note}".rstrip(), flush=True)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Progress]:
    """Show the progress of a task of ``total`` steps, ``done`` of them already, while the ``with`` block runs."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, TextColumn("{task.fields[note]}")) as bar:
        bar.disable = not bar.console.is_terminal
        yield Progress(title, total, done, bar)
