"""Call a function in a process of its own, which ends when this one does."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def apart(function: Callable[..., Result], *arguments: object, meanwhile: Callable[[], object] | None = None) -> Result:
    """``function(*arguments)`` in a fresh process: what it patches, and what it holds of a card's memory, ends with it.

    Function, arguments and result are pickled. ``meanwhile`` is called here while the other process works. Should this
    process be killed, so is the other.

    Raises:
        Exception: what the function raised.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool:
        result = pool.submit(function, *arguments)
        if meanwhile is not None:
            meanwhile()
        return result.result()


def _end_with_parent() -> None:
    """Nobody else may write where a killed command wrote, once the same command is run again."""
    threading.Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
