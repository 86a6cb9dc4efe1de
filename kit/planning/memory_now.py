"""What of the memory is free, and what this process takes of it, at this moment: of the machine's and of its cards'."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_ADDRESSES_UNUSED = 3 * 2**30  # of a `ulimit -v`: what libraries and threads reserve and never fill
_CGROUP_2 = ("memory.max", "memory.current", "inactive_file")
_CGROUP_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def free_memory_bytes() -> float:
    """What this process may still take of the machine's memory: of the whole, of its cgroup, of its ulimit."""
    import psutil

    return min([float(psutil.virtual_memory().available), *_left_in_cgroups(), *_left_in_ulimit(psutil.Process())])


def _left_in_cgroups() -> Iterator[float]:
    """Limit minus use of each control group that this process is in; containers and systemd set these."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if controllers in ("", "memory"):  # version 2 has one tree, version 1 one for each controller
            top, names = (root, _CGROUP_2) if not controllers else (root / "memory", _CGROUP_1)
            inner = top / path.strip("/")
            for group in (inner, *(parent for parent in inner.parents if parent.is_relative_to(top))):
                with suppress(OSError, ValueError, KeyError):
                    limit, used = (int((group / name).read_text()) for name in names[:2])
                    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                    yield float(limit - used + int(statistics[names[2]]))  # files in memory are given back


def _left_in_ulimit(process: psutil.Process) -> Iterator[float]:
    """What `ulimit -v` leaves: addresses, of which libraries and threads take a good part that is never filled."""
    if sys.platform == "win32":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield float(limit - process.memory_info().vms - _ADDRESSES_UNUSED)


def taken_gib() -> float:
    """GiB that this process takes of the cards at this moment; without one, the most that it has had of the memory.

    On a card torch keeps what it once took, so after a step it is about the step's most. Where the driver does not know
    this process by its number, as in some containers and in WSL, it is what all on the card take.
    """
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return (own_bytes_on_cards() or total - free) / 2**30
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20  # bytes there, KiB elsewhere


def own_bytes_on_cards() -> int:
    """What this process takes of all cards, by the driver (NVML); 0 where that cannot be told."""
    try:
        import pynvml

        pynvml.nvmlInit()
        cards = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        programs = [program for card in cards for program in pynvml.nvmlDeviceGetComputeRunningProcesses(card)]
        return sum(program.usedGpuMemory or 0 for program in programs if program.pid == os.getpid())
    except Exception:  # no library, no driver, no right to ask: each has errors of its own
        return 0


def free_card() -> None:
    """Give back what models that are no longer used hold of the card's memory."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # does nothing where there is no card
