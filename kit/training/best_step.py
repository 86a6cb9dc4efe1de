"""Which adapter does a run keep? The last, or an earlier one whose answers to the held-out questions were better."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kit.checkpointing.checkpoints import checkpoints_in, step_of
from kit.evaluation.scores import NOISE
from kit.evaluation.statistics import mcnemar
from kit.storage.run_folder import RunFolder, read_jsonl

# The p-value below which a last step counts as worse than the best. More than NOISE: an earlier step that is kept for
# nothing costs next to nothing, a last one that fell apart costs the run (27 of 100, then 18: p is 0.06). The base
# itself is kept beyond noise alone: with it all that was learned is gone.
DOUBT = 0.2


@dataclass(frozen=True)
class BetterStep:
    """A step that is kept instead of the last that was looked at."""

    step: int
    last: int
    won: int
    lost: int
    questions: int
    is_warm_start: bool  # that of step 0

    @property
    def sentence(self) -> str:
        """For the console."""
        which = f"of step {self.step}"
        if self.is_warm_start:
            which = "of the warm start, which GRPO made worse"
        elif self.step == 0:
            which = "of the base, which training made worse: it changes nothing"
        return (
            f"adapter/ is the one {which}: of {self.questions} held-out questions it answers {self.won} better and "
            f"{self.lost} worse than step {self.last}, the last that was asked (--finish --keep last takes the last)"
        )

    @property
    def record(self) -> dict[str, Any]:
        """What run.yaml says of the adapter."""
        warm = {"warm_start": True} if self.is_warm_start else {}
        return {"step": self.step, **warm, "better_than_last": self.won, "worse_than_last": self.lost}


@dataclass
class HeldOutHistory:
    """What a run answered to the held-out questions, a digit a question: ``right`` of ``HeldOutRow``."""

    base: str | None = None
    right: dict[int, str] = field(default_factory=dict)  # of step 0 the last: with a warm start that is after it
    after_warm_start: bool = False

    @classmethod
    def of(cls, run: RunFolder, until: int | None = None) -> HeldOutHistory:
        """Those that metrics.jsonl has, all or until a step."""
        rows = [(row["step"], row["heldout"]["right"]) for row in read_jsonl(run.metrics_file) if row.get("heldout")]
        rows = [(step, right) for step, right in rows if until is None or step <= until]
        at_first = [right for step, right in rows if step == 0]
        asked = len(rows[-1][1]) if rows else 0
        alike = {step: right for step, right in rows if len(right) == asked}  # else the questions were others then
        base = at_first[0] if at_first and len(at_first[0]) == asked else None
        return cls(base, alike, len(at_first) > 1)

    def best(self, steps: Iterable[int]) -> int | None:
        """The one of ``steps`` with the most right answers; the later of two that are equal."""
        return max(steps, key=lambda step: (points(self.right[step]), step), default=None)

    def lost_to_base(self, step: int) -> tuple[int, int] | None:
        """(right in any form now, before training) where those are fewer by more than noise."""
        now = self.right[step]
        base = self.base or now
        won, lost = _won_and_lost(*("".join(str(min(int(digit), 1)) for digit in right) for right in (base, now)))
        if lost <= won or mcnemar(won, lost) >= NOISE:
            return None
        return sum(digit != "0" for digit in now), sum(digit != "0" for digit in base)

    def better_than(self, last: int, kept: Iterable[int]) -> BetterStep | None:
        """The best of the steps whose adapters are ``kept``, where ``last`` seems worse, or worse than the base."""
        best = self.best(step for step in kept if step in self.right)
        if best is None or best == last or last not in self.right:
            return None
        won, lost = _won_and_lost(self.right[last], self.right[best])
        warm = best == 0 and self.after_warm_start
        doubt = DOUBT if best or warm else NOISE
        has_more = won > lost and points(self.right[best]) > points(self.right[last])
        is_better = has_more and mcnemar(won, lost) < doubt
        if not is_better and not (self.lost_to_base(last) and not self.lost_to_base(best)):
            return None
        return BetterStep(best, last, won, lost, len(self.right[last]), warm)


def points(right: str) -> int:
    """Right answers by both readings: two points for one in its ``<answer>`` block, one for one found elsewhere."""
    return sum(map(int, right))


def clear_bests(run: RunFolder, after: int = -1) -> None:
    """Forget the kept adapters, or those of steps after ``after``, which are done again."""
    unfinished = run.best.glob("*.partial")  # a kill leaves one
    for folder in [*unfinished, *(kept for kept in checkpoints_in(run.best) if step_of(kept) > after)]:
        shutil.rmtree(folder, ignore_errors=True)


def _won_and_lost(before: str, after: str) -> tuple[int, int]:
    pairs = list(zip(before, after, strict=True))
    return sum(was < now for was, now in pairs), sum(was > now for was, now in pairs)
