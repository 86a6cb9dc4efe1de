"""Where is the run going? The policy answers the questions that were set aside, and the best step so far is kept.

A rising reward does not say that more answers are right: a model can learn to please its rewards and lose its sums.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kit import ranks
from kit.chat_templates import fitted
from kit.checkpointing.checkpoints import checkpoints_in, step_of
from kit.checkpointing.saving import restore_adapter
from kit.cli.errors import first_line
from kit.cli.progress import progress
from kit.evaluation.scores import NOISE
from kit.evaluation.statistics import mcnemar, wilson
from kit.generation.engine import Completion, Engine, Sampling
from kit.grading import verdicts
from kit.planning.hardware import own_card
from kit.prompts import build_prompt
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder, append_jsonl, read_jsonl
from kit.storage.run_rows import HeldOutRow
from kit.task.questions import Row
from kit.training.alarms import Alarm
from kit.training.policy_engine import answering
from kit.training.run_log import RunLog
from kit.training.run_record import save_weights


class HeldOut:
    """The held-out scores of a run.

    Args:
        questions: that were set aside; with none, nothing is ever done.
        settings: of the run.
        run: its folder.
        log: that shows and writes down the scores.
    """

    def __init__(self, questions: list[Row], settings: Settings, run: RunFolder, log: RunLog) -> None:
        self._questions, self._settings, self._run, self._log = questions, settings, run, log
        self._is_asked = bool(settings.eval_every and questions)  # alike in all processes; the first alone asks
        self._has_failed = False
        rows = [(row["step"], row["heldout"]["right"]) for row in read_jsonl(run.metrics_file) if row.get("heldout")]
        before_the_first = [right for step, right in rows if step == 0]
        self._base: str | None = before_the_first[0] if before_the_first else None
        self._after_warm_start = len(before_the_first) > 1
        self._right: dict[int, str] = dict(rows)  # of step 0 the last: with a warm start that is after it
        self._saved = {step for step in self._right if _best_folder(run, step).is_dir()}
        self.engine: Callable[[], Engine] | None = None  # set before training: the policy's, as it is by then

    @property
    def best(self) -> int | None:
        """The step with the most right answers of those whose adapter is kept; the later of two that are equal."""
        return max(self._saved, key=lambda step: (points(self._right[step]), step), default=None)

    @property
    def stands_still(self) -> bool:
        """Have the last ``--patience`` scores been no better than the best before them?"""
        scores = [points(self._right[step]) for step in sorted(self._right)]
        best, patience = scores.index(max(scores)) if scores else 0, self._settings.patience
        return bool(patience) and len(scores) - 1 - best >= patience

    def callback(self) -> Any:
        """The trainer callback that measures; it comes before those that write a step down and save it."""
        from transformers import TrainerCallback

        held_out = self

        class Measuring(TrainerCallback):
            def on_step_end(self, _, state, control, model=None, processing_class=None, **__):
                step = state.global_step
                if held_out._is_asked and (step % held_out._settings.eval_every == 0 or step == state.max_steps):
                    ranks.by_first(lambda: held_out._measure(step, model, processing_class))
                    control.should_training_stop |= ranks.told(held_out.stands_still)

        return Measuring()

    def begin(self, policy: Any, tokenizer: Any, warm_start: Callable[[], bool]) -> None:
        """Measure the base, let the warm start do what it does, and measure again if the policy is another then."""
        if self._is_asked:
            ranks.by_first(lambda: self._measure(0, policy, tokenizer, "base") if self._base is None else None)
        if warm_start() and self._is_asked:
            ranks.by_first(lambda: self._measure_warm_start(policy, tokenizer))

    def _measure_warm_start(self, policy: Any, tokenizer: Any) -> None:
        if not self._after_warm_start:
            self._measure(0, policy, tokenizer, "warm-start")
            self._after_warm_start = True

    def _measure(self, step: int, model: Any, tokenizer: Any, name: str = "") -> None:
        if self._has_failed:
            return
        try:
            score = self._answered(name or f"step-{step}", model, tokenizer)
        except Exception as error:  # an engine that fails must not end a training that goes well
            print(f"the held-out questions could not be answered ({first_line(error)}): training goes on without them")
            self._has_failed = True
            return
        self._right[step] = score["right"]
        worse = self._worse_than_base(step)
        is_best = self.best is None or points(score["right"]) >= points(self._right[self.best])
        if step == 0 or (is_best and not worse):  # a warm start takes the place of the base, whatever it did
            save_weights(model, tokenizer, _best_folder(self._run, step))
            self._saved.add(step)
            self._forget_old_bests()
        if step == 0:
            self._base = self._base or score["right"]
        self._log.take_held_out(step, score, [worse] if worse else [])

    def _answered(self, name: str, policy: Any, tokenizer: Any) -> HeldOutRow:
        """Ask them all, and keep the replies as ``name``; the training's random numbers go on as if nobody had."""
        import torch

        assert self.engine is not None
        engine = self.engine()
        began, rows = time.monotonic(), self._questions
        sampling = Sampling(self._settings.max_completion_length)
        prompts = [
            fitted(build_prompt(row["question"], self._settings.prompt()), tokenizer.chat_template) for row in rows
        ]
        replies: dict[int, Completion] = {}
        title = f"held-out questions, {name.replace('-', ' ')}"
        with torch.random.fork_rng(devices=own_card()), answering(policy), progress(title, len(rows)) as bar:
            for batch in engine.generate(prompts, sampling):
                replies |= dict(batch)
                bar.advance(len(batch))
        judged = [verdicts(replies[place].text, str(row["answer"])) for place, row in enumerate(rows)]
        self._keep_replies(name, replies, judged)
        return {
            "questions": len(rows),
            "strict": _share([verdict["strict"] for verdict in judged]),
            "flexible": _share([verdict["flexible"] for verdict in judged]),
            "format_rate": sum(verdict["in_format"] for verdict in judged) / len(rows),
            "completion_length": sum(reply.tokens for reply in replies.values()) / len(rows),
            "truncated_rate": sum(reply.truncated for reply in replies.values()) / len(rows),
            "right": "".join(str(verdict["strict"] + verdict["flexible"]) for verdict in judged),
            "seconds": round(time.monotonic() - began, 1),
        }

    def _keep_replies(self, name: str, replies: dict[int, Completion], judged: list[dict[str, bool]]) -> None:
        self._run.held_out.mkdir(exist_ok=True)
        file = self._run.held_out / f"{name}.jsonl"
        file.unlink(missing_ok=True)
        append_jsonl(
            file,
            *(
                {
                    "question": row["question"],
                    "gold": row["answer"],
                    "reply": replies[place].text,
                    **judged[place],
                    "truncated": replies[place].truncated,
                }
                for place, row in enumerate(self._questions)
            ),
        )

    def _forget_old_bests(self) -> None:
        """No run goes back before its newest checkpoint: the best until there is kept, and the best since."""
        newest = max(map(step_of, checkpoints_in(self._run.checkpoints)), default=0)
        until_there = {step for step in self._saved if step <= newest}
        kept = {self.best, max(until_there, key=lambda step: (points(self._right[step]), step), default=None)}
        for step in self._saved - kept:
            shutil.rmtree(_best_folder(self._run, step), ignore_errors=True)
        self._saved &= kept

    def take_best(self, policy: Any, last: int) -> dict[str, Any]:
        """Put the adapter of the best step into ``policy`` where the last step's answers are worse beyond noise.

        Returns:
            What run.yaml says of it: ``step``, whose adapter it is, and why.
        """
        best = self.best
        if self._settings.keep == "last" or best is None or last not in self._right or best == last:
            return {"step": last}
        won, lost = _won_and_lost(self._right[last], self._right[best])
        no_better = points(self._right[best]) <= points(self._right[last]) or mcnemar(won, lost) >= NOISE
        if no_better and not (self._worse_than_base(last) and not self._worse_than_base(best)):
            return {"step": last}
        restore_adapter(policy, _best_folder(self._run, best))
        of = f"{len(self._questions)} held-out questions"
        which, warm = f"of step {best}", best == 0 and self._after_warm_start
        if warm:
            which = "of the warm start, which GRPO made worse"
        elif best == 0:
            which = "of the base, which training made worse: it changes nothing"
        print(
            f"adapter/ is the one {which}: of {of} it answers {won} better and {lost} worse than the last, step {last} "
            "(--keep last takes that)"
        )
        won_and_lost = {"better_than_last": won, "worse_than_last": lost}
        return {"step": best, **({"warm_start": True} if warm else {}), **won_and_lost}

    def _worse_than_base(self, step: int) -> Alarm | None:
        """Fewer right answers than the base has, whatever their form, by more than noise."""
        now = self._right[step]
        base = self._base or now
        won, lost = _won_and_lost(*("".join(str(min(int(digit), 1)) for digit in right) for right in (base, now)))
        if lost <= won or mcnemar(won, lost) >= NOISE:
            return None
        before, after = (sum(digit != "0" for digit in right) for right in (base, now))
        return Alarm(
            "worse than the base",
            f"Of {len(now)} held-out questions {after} are right in any form, {before} before training: it is making "
            "the model worse, whatever the reward says.",
            "adapter/ will be the best step when the run ends (--patience 2 ends it sooner). Better begin anew: weigh "
            "format less (--rewards correctness:4,soft_format:0.5), lower --learning-rate, or set --beta 0.04.",
        )


def points(right: str) -> int:
    """Right answers by both readings: two points for one in its ``<answer>`` block, one for one found elsewhere."""
    return sum(map(int, right))


def clear_bests(run: RunFolder, after: int = -1) -> None:
    """Forget the kept adapters, or those of steps after ``after``, which are done again."""
    for folder in run.best.glob("step-*"):
        if step_of(folder) > after:
            shutil.rmtree(folder, ignore_errors=True)


def _best_folder(run: RunFolder, step: int) -> Path:
    return run.best / f"step-{step}"


def _share(right: list[bool]) -> dict[str, float]:
    low, high = wilson(sum(right), len(right))
    return {"accuracy": sum(right) / len(right), "low": round(low, 4), "high": round(high, 4)}


def _won_and_lost(before: str, after: str) -> tuple[int, int]:
    pairs = list(zip(before, after, strict=True))
    return sum(was < now for was, now in pairs), sum(was > now for was, now in pairs)
