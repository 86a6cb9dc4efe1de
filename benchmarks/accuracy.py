"""Held-out accuracy against completions and time: the published recipe, tuned, and what might beat it.

    python -m benchmarks.accuracy                     all arms of arms.yaml, seeds 1 to 3 (an hour on two cores)
    python -m benchmarks.accuracy --arm "verl, rate 1e-3"

Each seed has a base model and problems of its own (``runs/accuracy``, made where they are missing; see
``benchmarks.small_vocabulary``). A run that is in ``results/accuracy.json`` for the same settings is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.accuracy_run import read_arms
from benchmarks.record import RESULTS, write_result
from benchmarks.worker_runs import run_worker
from demo.base import STAMP_FILE
from kit.progress import progress

FOLDER = Path("runs/accuracy")
FILE = RESULTS / "accuracy.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", action="append", choices=list(read_arms()), help="only this one; may be given again")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    arms = {name: arm for name, arm in read_arms().items() if not args.arm or name in args.arm}
    runs = [run for run in recorded() if run["settings"] == read_arms().get(run["arm"])]
    done = {(run["arm"], run["seed"]) for run in runs}
    missing = [(name, seed) for name in arms for seed in args.seeds if (name, seed) not in done]
    for seed in {seed for _, seed in missing}:
        prepare(seed)
    with progress("runs", len(missing)) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        asked = {pool.submit(one_run, name, seed): name for name, seed in missing}
        for finished in as_completed(asked):
            runs.append(finished.result() | {"settings": arms[asked[finished]]})
            runs.sort(key=lambda run: (list(read_arms()).index(run["arm"]), run["seed"]))
            write_result("accuracy", {"runs": runs}, packages=("trl", "transformers", "torch", "unsloth"))
            bar.advance(note=asked[finished])


def recorded() -> list[dict[str, Any]]:
    """The runs that were made before."""
    return json.loads(FILE.read_text(encoding="utf-8"))["figures"]["runs"] if FILE.exists() else []


def prepare(seed: int) -> None:
    """The base model and the problems of a seed, where they are missing or of another recipe."""
    base, small, data = (FOLDER / f"{kind}-{seed}" for kind in ("base", "small", "data"))
    run_module("demo.base", base, "--seed", seed)
    run_module("demo.problems", data, "--seed", seed)
    made = small / "config.json"
    if not made.exists() or made.stat().st_mtime < (base / STAMP_FILE).stat().st_mtime:
        run_module("benchmarks.small_vocabulary", base, small)


def run_module(*arguments: object) -> None:
    """Run a module of the kit in a process of its own."""
    subprocess.run([sys.executable, "-m", *map(str, arguments)], check=True)


def one_run(arm: str, seed: int) -> dict[str, Any]:
    """The arm, the seed and the points of the curve, from a process of its own."""
    small, data = FOLDER / f"small-{seed}", FOLDER / f"data-{seed}"
    run = run_worker("benchmarks.accuracy_run", small, data, arm, "--seed", seed, OMP_NUM_THREADS="1")  # one core each
    if "error" in run:
        sys.exit(f"{arm}, seed {seed} failed:\n{run['error']}")
    return run


if __name__ == "__main__":
    main()
