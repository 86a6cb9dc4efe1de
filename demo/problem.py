"""A made-up problem, and what its makers share."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

NAMES = ("Ana", "Ben", "Eva", "Leo", "Max", "Mia", "Sam", "Tom")


@dataclass(frozen=True)
class Problem:
    """One problem: the question, the worked steps, and what answers it.

    ``key`` decides which file it may stand in, ``easy`` marks the kind that the base mostly answers in format, and
    ``said`` is the answer in a reply, where that is another than the data's.
    """

    question: str
    steps: str
    answer: Any
    key: tuple[object, ...]
    easy: bool = False
    said: str = ""

    @property
    def reply(self) -> str:
        """The answer as a right reply says it."""
        return self.said or (self.answer if isinstance(self.answer, str) else json.dumps(self.answer))

    def as_row(self) -> dict[str, Any]:
        """The row of a data file; of a sum in GSM8K's form: a worked solution that ends in ``#### N``."""
        is_sum = isinstance(self.answer, int)
        return {"question": self.question, "answer": f"{self.steps}\n#### {self.answer}" if is_sum else self.answer}


def numbers(rng: random.Random) -> tuple[int, int]:
    """Two numbers of mixed difficulty, the larger first: from one digit each to two digits each."""
    high_a, high_b = rng.choice(((9, 9), (50, 9), (50, 50)))
    a, b = rng.randint(2, high_a), rng.randint(2, high_b)
    return max(a, b), min(a, b)
