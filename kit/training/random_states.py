"""Python's, NumPy's and torch's random numbers, kept for the training while something else draws some."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from kit.planning.hardware import own_card


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """The training's random numbers go on as if nobody had drawn any in between."""
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=own_card()):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
