"""Rollouts, steps and memory on a card, capped to sizes that people have: the kit and plain TRL, with vLLM and without.

    python -m benchmarks.gpu BASE DATA [--caps 8 12 15 24] [--variants "kit, vLLM" "kit, without"]

In turn in one run: each variant at each cap, each in a process of its own; beside each, the plan's estimate and the
limit of memory bandwidth (every token of a batch reads all weights once). BASE is a model folder; for a random one of
Qwen2.5-0.5B's shape see ``tests/gpu/random_model.py``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from typing import Any

from benchmarks.record import write_result
from benchmarks.worker_runs import STEP_WORKER, run_worker
from kit.cli.progress import progress
from kit.planning.card_memory import BITS_OF_4BIT
from kit.planning.gpus import figures_of
from kit.planning.model_shape import ModelShape, model_shape

CAPS = (8.0, 12.0, 15.0, 24.0)
VARIANTS = {
    "kit, vLLM": ("kit", ("--vllm", "require")),
    "kit, without": ("kit", ("--vllm", "off")),
    "TRL, vLLM": ("trl", ("--vllm", "require")),
    "TRL, without": ("trl", ("--vllm", "off")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("data")
    parser.add_argument("--caps", type=float, nargs="+", default=CAPS, metavar="GIB")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--completion", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    card, driver, memory_gib = the_card()
    caps = [cap for cap in args.caps if cap < memory_gib] or [memory_gib]
    rows = []
    with progress("runs", len(caps) * len(args.variants)) as bar:
        for cap in caps:
            for name in args.variants:
                variant, options = VARIANTS[name]
                sizes = ("--steps", str(args.steps), "--completion", str(args.completion), "--cap-gib", str(cap))
                rows.append(
                    {
                        "name": name,
                        "cap_gib": cap,
                        **run_worker(STEP_WORKER, variant, args.base, args.data, *sizes, *options),
                    }
                )
                bar.advance(note=f"{name} at {cap:g} GiB")
    limit = bandwidth_limit(model_shape(args.base), card)
    print(table(rows, limit))
    figures = {"card": card, "driver": driver, "bandwidth_limit_tokens_a_second_for_each_sequence": limit, "runs": rows}
    print(write_result("gpu", figures, packages=("torch", "vllm", "unsloth", "trl", "transformers")))


def the_card() -> tuple[str, str, float]:
    """Name, driver and memory in GiB of the first card."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    said = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    name, driver, mebibytes = (part.strip() for part in said.rsplit(",", 2))
    return name, driver, int(mebibytes) / 1024


def bandwidth_limit(shape: ModelShape, card: str) -> float | None:
    """Tokens a second that one sequence can have at most: the card's bandwidth over the bytes of 4-bit weights."""
    figures = figures_of(card)
    if figures is None:
        return None
    read = shape.linear_parameters * BITS_OF_4BIT / 8 + shape.vocabulary * shape.hidden * 2
    return figures[0] * 1e9 / read


def what_failed(said: str) -> str:
    """The last error that a process named; libraries warn of their own end after it."""
    lines = said.splitlines()
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Refused|Stopped)\b", line)]
    return (named or lines)[-1][:60]


def table(rows: list[dict[str, Any]], limit: float | None) -> str:
    """A Markdown table of the runs."""
    head = (
        "| cap | variant | tokens/s | of the limit | s/step | peak GiB | planned GiB |\n|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *(_row(row, limit) for row in rows)])


def _row(row: dict[str, Any], limit: float | None) -> str:
    if "error" in row:
        return f"| {row['cap_gib']:g} | {row['name']} | {what_failed(row['error'])} | | | | |"
    rate, sequences = row["rollout_tokens_a_second"] or 0.0, row["completions_a_step"]
    of_limit = f"{rate / (limit * sequences):.0%}" if limit else ""
    planned = f"{row['planned_peak_gib']:.1f}" if row["variant"] == "kit" and row["planned_peak_gib"] else ""
    return (
        f"| {row['cap_gib']:g} | {row['name']} | {rate:.0f} | {of_limit} "
        f"| {row['seconds_a_step']:.2f} | {row.get('peak_gib', 0):.1f} | {planned} |"
    )


if __name__ == "__main__":
    main()
