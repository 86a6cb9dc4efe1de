"""The 16-bit base that merging needs is fetched while a 4-bit one trains."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kit.cli.errors import UserError
from kit.cli.signals import StopRequest
from kit.storage.hub import fetch


@contextmanager
def fetching(model: str, stop: StopRequest) -> Iterator[None]:
    """Fetch a Hub model that is not here while the ``with`` block runs; wait for the rest of it, unless stopped.

    A failure is said and stops nothing: what needs the model later will try again.
    """

    def in_background() -> None:
        try:
            fetch(model)
        except UserError as error:
            print(f"{error}. Merging will try again")

    thread = threading.Thread(target=in_background, daemon=True)
    thread.start()
    yield
    if thread.is_alive() and stop.signal is None:
        print(f"waiting for the rest of {model}, which merging needs (Ctrl-C leaves it to be fetched then)")
    while thread.is_alive() and stop.signal is None:
        thread.join(1)
