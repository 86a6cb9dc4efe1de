"""Prompts put to a server, so many at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from kit.generation.engine import Completion, Conversation, Finished


def asked_at_once(
    ask: Callable[[Conversation, int], Completion], conversations: Sequence[Conversation], at_once: int
) -> Iterator[Finished]:
    """A completion for each conversation, as soon as it is there; whoever is done takes the next prompt at once.

    Args:
        ask: gets the completion of a conversation, which it is given with its place.
        conversations: that are asked.
        at_once: how many at the same time.
    """
    pool = ThreadPoolExecutor(at_once)
    try:
        asked = {pool.submit(ask, messages, place): place for place, messages in enumerate(conversations)}
        for reply in as_completed(asked):
            yield [(asked[reply], reply.result())]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
