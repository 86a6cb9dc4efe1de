"""The table and the plot of ``benchmarks/README.md`` from ``results/accuracy.json``.

    python -m benchmarks.accuracy_table

Each seed has a base of its own, so each has targets of its own: 90, 95 and 99 % of what the tuned baseline gains with
that seed, from the base to the mean of its last three evaluations. A run has reached a target at the first of two
evaluations in a row that have.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from benchmarks.accuracy import FILE
from benchmarks.accuracy_run import CONFIRMING, EXPLORING
from benchmarks.record import RESULTS

BASELINE = "verl, rate "
SHARES = (0.90, 0.95, 0.99)  # of the baseline's gain
Run = dict[str, Any]


def main() -> None:
    runs = json.loads(FILE.read_text(encoding="utf-8"))["figures"]["runs"]
    rounds = {}
    for seeds in (EXPLORING, CONFIRMING):
        arms: dict[str, dict[int, Run]] = defaultdict(dict)
        for run in runs:
            if run["seed"] in seeds:
                arms[run["arm"]][run["seed"]] = run
        print(f"\n### Seeds {seeds[0]} to {seeds[-1]}\n")
        rounds[f"seeds {seeds[0]} to {seeds[-1]}"] = (arms, table(arms))
    plot(rounds)


def table(arms: dict[str, dict[int, Run]]) -> str:
    """Print the table of these runs; returns the name of the tuned baseline."""
    swept = [name for name in arms if name.startswith(BASELINE)]
    baseline = max(swept, key=lambda name: statistics.median(end(run, "strict") for run in arms[name].values()))
    usual = arms[baseline]
    print(f"Tuned baseline: {baseline}; it ends at {percent([end(run, 'strict') for run in usual.values()])}.\n")
    titles = [f"completions to {share:.0%} of its gain (ratio)" for share in SHARES]
    print("| " + " | ".join(["", *titles, f"seconds to {SHARES[1]:.0%}", "ends at", "sums at the end"]) + " |")
    print("|---" * (len(SHARES) + 4) + "|")
    for name, runs in arms.items():
        cells = []
        for share in SHARES:
            own, its = (
                [reached(which[seed], target(usual[seed], share))[0] for seed in runs] for which in (runs, usual)
            )
            ratios = [mine / other for mine, other in zip(own, its, strict=True)]
            cells.append(f"{number(statistics.median(own))} ({said(ratios, '.2f')})".replace("never (never)", "never"))
        seconds = [reached(run, target(usual[seed], SHARES[1]))[1] for seed, run in runs.items()]
        ends = ([end(run, score) for run in runs.values()] for score in ("strict", "flexible"))
        cells += [said(seconds, ".0f"), *map(percent, ends)]
        print(f"| {name} | {' | '.join(cells)} |")
    return baseline


def target(baseline: Run, share: float) -> float:
    """The strict accuracy at ``share`` of what the baseline gains."""
    base = baseline["points"][0]["strict"]
    return base + share * (end(baseline, "strict") - base)


def end(run: Run, score: str) -> float:
    """The mean of the last three evaluations."""
    return statistics.mean(point[score] for point in run["points"][-3:])


def reached(run: Run, target: float) -> tuple[float, float]:
    """Completions and seconds until the strict accuracy is at the target; infinite where it never was."""
    points = run["points"]
    for point, following in pairwise(points):
        if point["strict"] >= target and following["strict"] >= target:
            return point["completions"], point["seconds"] - points[0]["seconds"]
    return float("inf"), float("inf")


def number(value: float, form: str = ".0f") -> str:
    """A number, or ``never`` for an infinite one."""
    return "never" if value == float("inf") else format(value, form)


def said(values: Sequence[float], form: str) -> str:
    """Median and range; ``never`` for what is infinite."""
    median, low, high = (number(value, form) for value in (statistics.median(values), min(values), max(values)))
    return "never" if low == "never" else f"{median}; {low} to {high}"


def percent(values: list[float]) -> str:
    return f"{statistics.median(values):.1%} ({min(values):.1%} to {max(values):.1%})"


def plot(rounds: dict[str, tuple[dict[str, dict[int, Run]], str]]) -> None:
    """Median curves over the seeds of each round, the baseline thick, to ``results/accuracy.svg``."""
    from matplotlib import pyplot

    figure, both = pyplot.subplots(len(rounds), figsize=(8, 9), sharex=True, sharey=True)
    for axes, (title, (arms, baseline)) in zip(both, rounds.items(), strict=True):
        for name, runs in arms.items():
            if name.startswith(BASELINE) and name != baseline:
                continue
            points = list(zip(*(run["points"] for run in runs.values()), strict=False))
            axes.plot(
                [same[0]["completions"] for same in points],
                [statistics.median(point["strict"] for point in same) for same in points],
                linewidth=3 if name == baseline else 1, label=name,
            )  # fmt: skip
        axes.set(title=title, ylabel="held-out strict accuracy, median of 3 seeds")
        axes.legend(fontsize="x-small")
    both[-1].set(xlabel="completions generated")
    pyplot.rcParams["svg.hashsalt"] = "accuracy"  # the same figures, the same file
    figure.savefig(file := RESULTS / "accuracy.svg", bbox_inches="tight", metadata={"Date": None})
    file.write_text(" ".join(file.read_text(encoding="utf-8").split("\n")), encoding="utf-8")  # thousands of lines


if __name__ == "__main__":
    main()
