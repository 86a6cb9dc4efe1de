"""Seconds for a GRPO step on a processor: the kit beside a bare script with Unsloth and TRL's trainer, in turn.

    python -m benchmarks.step runs/demo-base runs/demo-data/train.jsonl

The same model, settings and lengths; what differs is all that the kit watches and writes down. (transformers, PEFT and
TRL alone do not train on a processor: TRL 1.15 scores completions with Triton, which processors do not have.)
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from benchmarks.record import write_result
from benchmarks.worker_runs import STEP_WORKER, run_worker
from kit.cli.progress import progress

PAIRS, STEPS = 5, 6
SIZES = ("--steps", str(STEPS), "--batch-size", "16", "--accumulation", "1", "--completion", "40")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("data")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    args = parser.parse_args()
    pairs: list[dict[str, Any]] = []
    with progress("steps, in turn", args.pairs) as bar:
        for _ in range(args.pairs):
            pair = {
                variant: run_worker(STEP_WORKER, variant, args.base, args.data, *SIZES) for variant in ("kit", "bare")
            }
            failed = [figures["error"] for figures in pair.values() if "error" in figures]
            if failed:
                sys.exit(f"a run failed: {failed[0]}")
            pairs.append(pair)
            bar.advance(note=f"{ratio(pair, 'seconds_a_step'):.3f}")
    print(
        write_result("step", {"sizes": SIZES, **figures(pairs)}, packages=("trl", "transformers", "torch", "unsloth"))
    )


def ratio(pair: dict[str, Any], name: str) -> float:
    return pair["kit"][name] / pair["bare"][name]


def figures(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios pair by pair (kit / bare script), their median and range, and medians in seconds."""
    found: dict[str, Any] = {}
    for name in ("seconds_a_step", "seconds_of_generation"):
        ratios = [ratio(pair, name) for pair in pairs]
        found[name] = {
            "ratio_kit_to_bare": statistics.median(ratios),
            "range": [min(ratios), max(ratios)],
            "pairs": ratios,
            **{variant: statistics.median(pair[variant][name] for pair in pairs) for variant in ("kit", "bare")},
        }
    for variant in ("kit", "bare"):
        shares = [pair[variant]["shares"] for pair in pairs]
        found[f"shares_{variant}"] = {part: statistics.median(share[part] for share in shares) for part in shares[0]}
    return found


if __name__ == "__main__":
    main()
