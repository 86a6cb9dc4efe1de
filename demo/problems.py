"""Made-up word problems in GSM8K's own JSONL form, for machines that have no GPU and no network.

    python -m demo.problems runs/demo-data --seed 1

writes ``train.jsonl`` and ``heldout.jsonl``. Each row is ``{"question": ..., "answer": ...}`` with a worked
solution that ends in ``#### N``, as in GSM8K. Everything follows from the seed. The two files share neither a
question nor a sum: the numbers of a held-out problem never stand together in a training problem.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TRAIN_ROWS = 2_000
HELDOUT_ROWS = 1_000
HELDOUT_SHARE = 0.2  # of all sums: which of the two files a sum may appear in

NAMES = ("Ana", "Ben", "Eva", "Leo", "Max", "Mia", "Sam", "Tom")
THINGS = ("apples", "books", "cards", "coins", "eggs", "pens")


@dataclass(frozen=True)
class Problem:
    """One word problem: the question, the worked steps, and the number that answers it."""

    question: str
    steps: str
    answer: int
    sum_key: tuple[str, int, int]

    def as_row(self) -> dict[str, str]:
        """The row in GSM8K's form: ``answer`` holds the worked solution and ends in ``#### N``."""
        return {"question": self.question, "answer": f"{self.steps}\n#### {self.answer}"}


def _numbers(rng: random.Random) -> tuple[int, int]:
    """Two numbers of mixed difficulty, the larger first: from one digit each to two digits each."""
    high_a, high_b = rng.choice(((9, 9), (50, 9), (50, 50)))
    a, b = rng.randint(2, high_a), rng.randint(2, high_b)
    return max(a, b), min(a, b)


def _gain(name: str, things: str, a: int, b: int) -> Problem:
    return Problem(
        f"{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        f"{a} + {b} = {a + b}", a + b, ("+", a, b),
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


def _is_heldout(problem: Problem) -> bool:
    """Which file a sum belongs to: a fixed property of its numbers, so that no seed can mix the two."""
    return random.Random(repr(problem.sum_key)).random() < HELDOUT_SHARE


def problems(seed: int, heldout: bool) -> Iterator[Problem]:
    """An endless stream of different problems, all from the training side or all from the held-out side."""
    rng = random.Random(f"{seed}-{'heldout' if heldout else 'train'}")
    seen: set[str] = set()
    while True:
        template = rng.choice(TEMPLATES)
        problem = template(rng.choice(NAMES), rng.choice(THINGS), *_numbers(rng))
        if problem.question not in seen and _is_heldout(problem) == heldout:
            seen.add(problem.question)
            yield problem


def write_problems(folder: Path, seed: int) -> None:
    """Write ``train.jsonl`` and ``heldout.jsonl`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, heldout, rows in (("train", False, TRAIN_ROWS), ("heldout", True, HELDOUT_ROWS)):
        stream = problems(seed, heldout)
        lines = [json.dumps(next(stream).as_row()) for _ in range(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo's word problems as train.jsonl and heldout.jsonl.")
    parser.add_argument("folder", type=Path, help="where the two files go")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other problems (default: 1)")
    args = parser.parse_args()
    write_problems(args.folder, args.seed)
    print(f"{args.folder}: train.jsonl ({TRAIN_ROWS} problems), heldout.jsonl ({HELDOUT_ROWS} problems)")


if __name__ == "__main__":
    main()
