"""Seconds until a script answers: ``--help``, a wrong call, and beside them what Python alone and Unsloth alone take.

python -m benchmarks.startup
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.in_turn import OFFLINE
from benchmarks.record import write_result
from kit.cli.progress import progress

ROUNDS = 5
CALLS = {
    "python alone": ["-c", "pass"],
    "train_lora.py --help": ["train_lora.py", "--help"],
    "merge_and_export.py --help": ["merge_and_export.py", "--help"],
    "evaluate.py --help": ["evaluate.py", "--help"],
    "train_lora.py with a wrong option": ["train_lora.py", "--learning-rat", "1"],
    "import unsloth, trl": ["-c", "import unsloth, trl"],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    with progress("start-ups, in turn", ROUNDS) as bar:
        for _ in range(ROUNDS):
            for name, arguments in CALLS.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, *arguments], capture_output=True, env=OFFLINE, check=False)
                times[name].append(round(time.perf_counter() - began, 3))
            bar.advance()
    seconds = {
        name: {"median": statistics.median(values), "range": [min(values), max(values)]}
        for name, values in times.items()
    }
    print(write_result("startup", seconds, packages=("torch", "unsloth", "trl")))


if __name__ == "__main__":
    main()
