"""Ctrl-C, SIGTERM and a closed terminal: finish the step, save, leave. A second one leaves at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Remembers that somebody asked to stop; ``signal`` is the signal's number, or ``None``.

    A launcher of several processes repeats to each what it was sent itself, and kills those that take too long: there
    the second signal is no wish of anybody's, and does not leave at once; and one that says so is enough.
    """

    def __init__(self, leaves_at_the_second: bool = True, is_heard: bool = True) -> None:
        self.signal: int | None = None
        self._leaves, self._is_heard = leaves_at_the_second, is_heard

    @property
    def exit_status(self) -> int:
        """As shells report it: 130 for Ctrl-C, 143 for SIGTERM, 129 for a closed terminal."""
        return 128 + (self.signal or 0)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals while the ``with`` block runs; one that is ignored (nohup) stays ignored."""
        wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        if self.signal is not None:
            if self._leaves:
                os._exit(128 + number)
            return
        self.signal = number
        if number == signal.SIGHUP:  # the terminal is gone, and writing to it would be an error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
        elif self._is_heard:
            again = b" (Ctrl-C again leaves at once)" if self._leaves else b""
            os.write(2, b"\nstopping: a checkpoint is saved after this step%b\n" % again)
