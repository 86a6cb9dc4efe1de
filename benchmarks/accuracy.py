"""Held-out accuracy against completions and time: the published recipe, tuned, and what might beat it.

    python -m benchmarks.accuracy                     all arms of arms.yaml, each with its seeds (an hour on two cores)
    python -m benchmarks.accuracy --arm "verl, rate 1e-3"

Each seed has a base model and problems of its own (``runs/accuracy``, made where they are missing; see
``benchmarks.small_vocabulary``). A run that is in ``results/accuracy.json`` for the same settings is not made again,
unless arms are missing for its seed and the base is another one here.
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

from benchmarks.accuracy_run import read_arms, read_seeds
from benchmarks.record import RESULTS, write_result
from benchmarks.worker_runs import run_worker
from demo.base import STAMP_FILE
from kit.cli.progress import progress
from kit.storage.atomic import file_hash

FOLDER = Path("runs/accuracy")
FILE = RESULTS / "accuracy.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", action="append", choices=list(read_arms()), help="only this one; may be given again")
    parser.add_argument("--seeds", type=int, nargs="+", help="(default: each arm's own)")
    args = parser.parse_args()
    arms = {name: arm for name, arm in read_arms().items() if not args.arm or name in args.arm}
    runs = [run for run in recorded() if run["settings"] == read_arms().get(run["arm"])]
    wanted = [(name, seed) for name in arms for seed in args.seeds or read_seeds()[name]]
    for seed in {seed for _, seed in not_among(runs, wanted)}:
        prepare(seed)
        runs = [run for run in runs if run["seed"] != seed or run.get("base") == base_of(seed)]
    missing = not_among(runs, wanted)
    with progress("runs", len(missing)) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        asked = {pool.submit(one_run, name, seed): name for name, seed in missing}
        for finished in as_completed(asked):
            run = finished.result()
            runs.append(run | {"settings": arms[asked[finished]], "base": base_of(run["seed"])})
            runs.sort(key=lambda run: (list(read_arms()).index(run["arm"]), run["seed"]))
            write_result("accuracy", {"runs": runs}, packages=("trl", "transformers", "torch", "unsloth"))
            bar.advance(note=asked[finished])


def recorded() -> list[dict[str, Any]]:
    """The runs that were made before."""
    return json.loads(FILE.read_text(encoding="utf-8"))["figures"]["runs"] if FILE.exists() else []


def not_among(runs: list[dict[str, Any]], wanted: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Pairs of arm and seed that have not been run."""
    done = {(run["arm"], run["seed"]) for run in runs}
    return [pair for pair in wanted if pair not in done]


def base_of(seed: int) -> str:
    """What tells the base of a seed: another machine rounds differently, and its base is another one."""
    return file_hash(FOLDER / f"small-{seed}" / "model.safetensors")[:16]


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
