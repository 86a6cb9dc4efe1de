"""What does chance do to a run that is looked at many times? Imagined runs whose training changes nothing.

    python -m benchmarks.many_looks

Each question has a chance of its own to be answered right, the same at every look: whatever differs is luck. How much
differs is that of a real run (seed 3 in docs/rewards.md): between its looks 13 to 18 of 100 answers turned, 21 right.
"""

from __future__ import annotations

import random
from statistics import mean

from benchmarks.record import write_result
from kit.training.best_step import HeldOutHistory, points

QUESTIONS, RIGHT, TURNING = 100, 0.21, 0.158  # the second and third are shares of the questions
LOOKS, RUNS, SEED = 12, 2000, 0


def imagined(generator: random.Random, looks: int) -> HeldOutHistory:
    """A run's looks at its held-out questions, of an unchanged model: step 0 (the base) and ``looks`` later ones."""
    # Of a beta distribution, a share of TURNING / (2 RIGHT (1 - RIGHT)) of the variance of an answer is luck.
    luck = TURNING / (2 * RIGHT * (1 - RIGHT))
    size = luck / (1 - luck)
    chances = [generator.betavariate(RIGHT * size, (1 - RIGHT) * size) for _ in range(QUESTIONS)]
    answers = ["".join("02"[generator.random() < chance] for chance in chances) for _ in range(looks + 1)]
    return HeldOutHistory(answers[0], dict(enumerate(answers)))


def figures(looks: int = LOOKS, runs: int = RUNS) -> dict[str, float | int]:
    """How often a run that changed nothing keeps an earlier step or is called worse than its base, and the gain."""
    generator = random.Random(SEED)
    all_runs = [imagined(generator, looks) for _ in range(runs)]
    kept = [(run, better) for run in all_runs if (better := run.better_than(looks, run.right))]
    flattered = [points(run.right[better.step]) / 2 - QUESTIONS * RIGHT for run, better in kept]
    alarmed = [run for run in all_runs if any(run.lost_to_base(step) for step in run.right if step)]
    return {
        "looks": looks,
        "runs": runs,
        "keep_an_earlier_step": len(kept) / runs,
        "points_too_high_of_those": round(mean(flattered), 1),
        "called_worse_than_the_base": len(alarmed) / runs,
    }


def main() -> None:
    said = [figures(looks) for looks in (1, 5, LOOKS, 25)]
    for row in said:
        print(row)
    print(write_result("many_looks", {"questions": QUESTIONS, "right": RIGHT, "turning": TURNING, "of": said}))


if __name__ == "__main__":
    main()
