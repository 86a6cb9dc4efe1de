"""Two commands timed in turn, A B A B …, on a machine that is never quiet."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from kit.cli.progress import progress

OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def seconds_of(*command: object) -> float:
    """How long a command takes; ends the benchmark where it fails."""
    began = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=OFFLINE, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def in_turn(title: str, rounds: int, first: Callable[[], float], second: Callable[[], float]) -> dict[str, Any]:
    """Seconds of both, round by round, and the ratio of the first to the second with its range."""
    times: list[tuple[float, float]] = []
    with progress(title, rounds) as bar:
        for _ in range(rounds):
            times.append((first(), second()))
            bar.advance(note=f"{times[-1][0] / times[-1][1]:.2f}")
    ratios = [a / b for a, b in times]
    return {
        "seconds": times,
        "medians": [statistics.median(column) for column in zip(*times, strict=True)],
        "ratio": statistics.median(ratios),
        "range": [min(ratios), max(ratios)],
    }
