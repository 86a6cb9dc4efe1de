"""Cards that a plan can be asked for by name, on a machine that has none: ``--plan --gpu t4``.

The figures are the makers' (memory as the driver shows it, memory bandwidth, dense float16 tensor speed); they serve
the memory plan exactly and the expected time roughly.
"""

from __future__ import annotations

from kit.cli.command_line import nearest
from kit.cli.errors import UserError
from kit.planning.hardware import NEWEST_DRIVER, Machine

_ON_A_DESK_GIB = 0.6  # what the desktop's own windows take of a card that drives a screen
_IN_A_SERVER_GIB = 0.1

# name → full name, compute capability, memory in GiB, GB a second, TFLOP a second
_DESK = {
    "gtx1080-8gb": ("NVIDIA GeForce GTX 1080", (6, 1), 7.9, 320, 9),
    "gtx1660ti-6gb": ("NVIDIA GeForce GTX 1660 Ti", (7, 5), 5.8, 288, 11),
    "rtx2060-6gb": ("NVIDIA GeForce RTX 2060", (7, 5), 5.8, 336, 52),
    "rtx2080ti-11gb": ("NVIDIA GeForce RTX 2080 Ti", (7, 5), 10.8, 616, 108),
    "rtx3050-laptop-4gb": ("NVIDIA GeForce RTX 3050 Laptop GPU", (8, 6), 3.8, 192, 27),
    "rtx3060-laptop-6gb": ("NVIDIA GeForce RTX 3060 Laptop GPU", (8, 6), 5.8, 336, 43),
    "rtx3060-12gb": ("NVIDIA GeForce RTX 3060", (8, 6), 11.6, 360, 51),
    "rtx3070-8gb": ("NVIDIA GeForce RTX 3070", (8, 6), 7.7, 448, 81),
    "rtx3080-10gb": ("NVIDIA GeForce RTX 3080", (8, 6), 9.6, 760, 119),
    "rtx3090": ("NVIDIA GeForce RTX 3090", (8, 6), 23.6, 936, 142),
    "rtx4050-laptop-6gb": ("NVIDIA GeForce RTX 4050 Laptop GPU", (8, 9), 5.8, 192, 60),
    "rtx4060-8gb": ("NVIDIA GeForce RTX 4060", (8, 9), 7.7, 272, 60),
    "rtx4060ti-16gb": ("NVIDIA GeForce RTX 4060 Ti", (8, 9), 15.6, 288, 88),
    "rtx4070-laptop-8gb": ("NVIDIA GeForce RTX 4070 Laptop GPU", (8, 9), 7.7, 256, 80),
    "rtx4070-12gb": ("NVIDIA GeForce RTX 4070", (8, 9), 11.6, 504, 117),
    "rtx4080": ("NVIDIA GeForce RTX 4080", (8, 9), 15.6, 717, 195),
    "rtx4090": ("NVIDIA GeForce RTX 4090", (8, 9), 23.5, 1008, 330),
    "rtx5060ti-16gb": ("NVIDIA GeForce RTX 5060 Ti", (12, 0), 15.5, 448, 95),
    "rtx5070-12gb": ("NVIDIA GeForce RTX 5070", (12, 0), 11.6, 672, 123),
    "rtx5080": ("NVIDIA GeForce RTX 5080", (12, 0), 15.5, 960, 225),
    "rtx5090": ("NVIDIA GeForce RTX 5090", (12, 0), 31.4, 1792, 419),
}
_SERVER = {
    "t4": ("Tesla T4", (7, 5), 14.6, 320, 65),
    "l4": ("NVIDIA L4", (8, 9), 22.0, 300, 121),
    "a10g": ("NVIDIA A10G", (8, 6), 22.0, 600, 125),
    "a100-40gb": ("NVIDIA A100-SXM4-40GB", (8, 0), 39.4, 1555, 312),
    "h100": ("NVIDIA H100 80GB HBM3", (9, 0), 79.6, 3350, 989),
}
_OTHER_MAKERS = {"rx7900xtx": ("AMD Radeon RX 7900 XTX", "amd"), "apple-m3-max": ("Apple M3 Max", "apple")}

NAMES = (*_SERVER, *_DESK, *_OTHER_MAKERS)


def card_named(name: str) -> Machine:
    """A Linux machine with this card, the newest driver and vLLM installed.

    Raises:
        UserError: no card of this name is known.
    """
    key = name.lower().replace("_", "-").replace(" ", "-")
    if key in _OTHER_MAKERS:
        full_name, maker = _OTHER_MAKERS[key]
        return Machine(full_name, maker=maker)
    taken = _IN_A_SERVER_GIB if key in _SERVER else _ON_A_DESK_GIB
    known = (_SERVER | _DESK).get(key)
    if known is None:
        hint = nearest(key, NAMES)
        known_ones = f"{hint} --gpu list names all" if hint else f": known are {', '.join(NAMES)}"
        raise UserError(f"--gpu {name} is no card that the plan knows{known_ones}")
    full_name, capability, memory, *_ = known
    return Machine(full_name, capability, memory, free_gib=memory - taken, driver=NEWEST_DRIVER, has_vllm=True)


def figures_of(card: str) -> tuple[float, float] | None:
    """(GB a second, TFLOP a second) of a card by its full name, or of the one whose variant it is; else ``None``."""
    known = {full_name: (bandwidth, speed) for full_name, _, _, bandwidth, speed in (_SERVER | _DESK).values()}
    of_a_kind = [full_name for full_name in known if card.startswith(full_name)]
    return known[max(of_a_kind, key=len)] if of_a_kind else None
