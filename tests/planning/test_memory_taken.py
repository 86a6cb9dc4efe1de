"""How much of a card is this run's, and how much another program's. A card and its driver are imitated."""

import os
import sys
from types import SimpleNamespace

import pytest

from kit.planning.memory_now import taken_gib

GIB = 2**30


def driver(programs):
    """NVML with one card and these programs on it."""
    return SimpleNamespace(
        nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: 1, nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetComputeRunningProcesses=lambda _: programs,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("programs", "gib"),
    [([(os.getpid(), 6 * GIB), (1, 8 * GIB)], 6), ([(1, 14 * GIB)], 15), ([(os.getpid(), None)], 15), (None, 15)],
    ids=["beside another program", "in a container", "in WSL", "without the library"],
)
def test_what_others_take_is_not_counted_where_the_driver_tells(monkeypatch, programs, gib):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (65 * GIB, 80 * GIB))
    named = programs and [SimpleNamespace(pid=pid, usedGpuMemory=taken) for pid, taken in programs]
    monkeypatch.setitem(sys.modules, "pynvml", driver(named) if named else None)
    assert taken_gib() == gib
