"""Prompts put to a server, so many at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

from kit.generation.engine import Completion, Conversation, Finished


def asked_at_once(
    ask: Callable[[Conversation, int], Completion], conversations: Sequence[Conversation], at_once: int
) -> Iterator[Finished]:
    """A completion for each conversation, as soon as it is there; whoever is done takes the next prompt at once.

    Where one fails, no further one is asked, and those under way are waited for: they cost as much as others. Its
    threads are daemons, unlike a pool's, for which Python waits at its end: after Ctrl-C that may be an hour.

    Args:
        ask: gets the completion of a conversation, which it is given with its place.
        conversations: that are asked.
        at_once: how many at the same time.

    Raises:
        Exception: what ``ask`` raised first.
    """
    places, finished = iter(range(len(conversations))), SimpleQueue[tuple[int, Completion | Exception] | None]()
    next_place, ends = threading.Lock(), threading.Event()

    def work() -> None:
        while not ends.is_set():
            with next_place:
                place = next(places, None)
            if place is None:
                break
            try:
                finished.put((place, ask(conversations[place], place)))
            except Exception as error:
                ends.set()
                finished.put((place, error))
        finished.put(None)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(conversations)))]
    for worker in workers:
        worker.start()
    first_error: Exception | None = None
    working = len(workers)
    try:
        while working:
            result = finished.get()
            if result is None:
                working -= 1
            elif isinstance(result[1], Exception):
                first_error = first_error or result[1]
            else:
                yield [(result[0], result[1])]
    finally:
        ends.set()
    if first_error:
        raise first_error
