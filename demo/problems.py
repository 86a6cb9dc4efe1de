"""Made-up word problems in GSM8K's own JSONL form, for machines that have no GPU and no network.

    python -m demo.problems runs/demo-data --seed 1
    python -m demo.problems runs/choice-data --task choice        ... and those of the other tasks in tasks/

writes ``train.jsonl`` and ``heldout.jsonl``. Each row is ``{"question": ..., "answer": ...}`` with a worked
solution that ends in ``#### N``, as in GSM8K. Everything follows from the seed. The two files share neither a
question nor a sum: the numbers of a held-out problem never stand together in a training problem.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from demo.other_problems import MAKERS
from demo.problem import NAMES, Problem, numbers

TRAIN_ROWS = 2_000
HELDOUT_ROWS = 1_000
MOST_MISSES = 500  # in a row: nearly all that there are have been
HELDOUT_SHARE = 0.2  # of all sums: which of the two files a sum may appear in

THINGS = ("apples", "books", "cards", "coins", "eggs", "pens")

Maker = Callable[[random.Random], Problem]


def _gain(name: str, things: str, a: int, b: int) -> Problem:
    return Problem(
        f"{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        f"{a} + {b} = {a + b}", a + b, ("+", a, b), easy=True,
    )  # fmt: skip


def _loss(name: str, things: str, a: int, b: int) -> Problem:
    return Problem(
        f"{name} has {a} {things} and gives {b} away. How many {things} does {name} have left?",
        f"{a} - {b} = {a - b}", a - b, ("-", a, b),
    )  # fmt: skip


def _total(name: str, things: str, a: int, b: int) -> Problem:
    return Problem(
        f"There are {a} {things} in the red box and {b} in the blue box. How many {things} does {name} count?",
        f"{a} + {b} = {a + b}", a + b, ("+", a, b),
    )  # fmt: skip


TEMPLATES = (_gain, _loss, _total)


def _sum(rng: random.Random) -> Problem:
    template = rng.choice(TEMPLATES)
    return template(rng.choice(NAMES), rng.choice(THINGS), *numbers(rng))


def _is_heldout(problem: Problem) -> bool:
    """Which file a problem belongs to: a fixed property of its key, so that no seed can mix the two."""
    return random.Random(repr(problem.key)).random() < HELDOUT_SHARE


def problems(seed: int, heldout: bool, make: Maker = _sum) -> Iterator[Problem]:
    """An endless stream of different problems, all from the training side or all from the held-out side; those that
    there are begin anew when all have been."""
    rng = random.Random(f"{seed}-{'heldout' if heldout else 'train'}")
    seen: set[str] = set()
    misses = 0
    while True:
        problem = make(rng)
        if problem.question not in seen and _is_heldout(problem) == heldout:
            seen.add(problem.question)
            yield problem
            misses = 0
        elif (misses := misses + 1) == MOST_MISSES:
            seen.clear()


def write_problems(folder: Path, seed: int, make: Maker = _sum) -> None:
    """Write ``train.jsonl`` and ``heldout.jsonl`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, heldout, rows in (("train", False, TRAIN_ROWS), ("heldout", True, HELDOUT_ROWS)):
        stream = problems(seed, heldout, make)
        lines = [json.dumps(next(stream).as_row()) for _ in range(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def maker_of(task: str) -> Maker:
    """What makes the problems of a task of ``tasks/``."""
    return MAKERS.get(task, _sum)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo's word problems as train.jsonl and heldout.jsonl.")
    parser.add_argument("folder", type=Path, help="where the two files go")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other problems (default: 1)")
    parser.add_argument("--task", default="gsm8k", choices=("gsm8k", *MAKERS), help="default: %(default)s")
    args = parser.parse_args()
    write_problems(args.folder, args.seed, maker_of(args.task))
    print(f"{args.folder}: train.jsonl ({TRAIN_ROWS} problems), heldout.jsonl ({HELDOUT_ROWS} problems)")


if __name__ == "__main__":
    main()
