"""Where is the run going? The policy answers the questions that were set aside, and the best step so far is kept.

A rising reward does not say that more answers are right: a model can learn to please its rewards and lose its sums.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

from kit import ranks
from kit.chat_templates import fitted
from kit.checkpointing.adapter_weights import restore_adapter
from kit.checkpointing.checkpoints import checkpoints_in, step_of
from kit.cli.errors import first_line
from kit.cli.progress import progress
from kit.evaluation.statistics import wilson
from kit.generation.engine import Completion, Engine, Sampling
from kit.grading import verdicts
from kit.prompts import build_prompt
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder, append_jsonl
from kit.storage.run_rows import HeldOutRow
from kit.task.questions import Row
from kit.training.alarms import Alarm
from kit.training.best_step import HeldOutHistory, points
from kit.training.policy_engine import answering
from kit.training.random_states import same_random_numbers
from kit.training.run_log import RunLog
from kit.training.run_record import save_weights

_CUT_OFF = 0.5  # share of the base's replies; if more are cut off, training teaches above all to be short


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
        self._looks = HeldOutHistory.of(run)
        self._saved = {step for step in self._looks.right if run.best_adapter(step).is_dir()}
        self.engine: Callable[[], Engine] | None = None  # set before training: the policy's, as it is by then

    @property
    def best(self) -> int | None:
        """The step with the most right answers of those whose adapter is kept; the later of two that are equal."""
        return self._looks.best(self._saved)

    @property
    def stands_still(self) -> bool:
        """Have the last ``--patience`` scores been no better than the best before them?"""
        scores = [points(right) for _, right in sorted(self._looks.right.items())]
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
            ranks.by_first(lambda: self._measure(0, policy, tokenizer, "base") if self._looks.base is None else None)
        if warm_start() and self._is_asked:
            ranks.by_first(lambda: self._measure_warm_start(policy, tokenizer))

    def _measure_warm_start(self, policy: Any, tokenizer: Any) -> None:
        if not self._looks.after_warm_start:
            self._measure(0, policy, tokenizer, "warm-start")
            self._looks.after_warm_start = True

    def _measure(self, step: int, model: Any, tokenizer: Any, name: str = "") -> None:
        if self._has_failed:
            return
        try:
            score = self._answered(name or f"step-{step}", model, tokenizer)
        except Exception as error:  # an engine that fails must not end a training that goes well
            print(f"the held-out questions could not be answered ({first_line(error)}): training goes on without them")
            self._has_failed = True
            return
        right = self._looks.right
        right[step] = score["right"]
        worse = self._worse_than_base(step)
        tight = self._no_room(score) if self._looks.base is None else None
        is_best = self.best is None or points(score["right"]) >= points(right[self.best])
        if step == 0 or (is_best and not worse):  # a warm start takes the place of the base, whatever it did
            save_weights(model, tokenizer, self._run.best_adapter(step))
            self._saved.add(step)
            self._forget_old_bests()
        if step == 0:
            self._looks.base = self._looks.base or score["right"]
        self._log.take_held_out(step, score, [alarm for alarm in (worse, tight) if alarm])

    def _answered(self, name: str, policy: Any, tokenizer: Any) -> HeldOutRow:
        """Ask them all, and keep the replies as ``name``; the training's random numbers go on as if nobody had."""
        assert self.engine is not None
        engine = self.engine()
        began, rows = time.monotonic(), self._questions
        sampling = Sampling(self._settings.max_completion_length)
        prompts = [
            fitted(build_prompt(row["question"], self._settings.prompt()), tokenizer.chat_template) for row in rows
        ]
        replies: dict[int, Completion] = {}
        title = f"held-out questions, {name.replace('-', ' ')}"
        with same_random_numbers(), answering(policy), progress(title, len(rows)) as bar:
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
        kept = {self.best, self._looks.best(step for step in self._saved if step <= newest)}
        for step in self._saved - kept:
            shutil.rmtree(self._run.best_adapter(step), ignore_errors=True)
        self._saved &= kept

    def take_best(self, policy: Any, last: int) -> dict[str, Any]:
        """Put the adapter of the best step into ``policy`` where the last step's answers seem worse.

        Returns:
            What run.yaml says of it: ``step``, whose adapter it is, and why.
        """
        better = None if self._settings.keep == "last" else self._looks.better_than(last, self._saved)
        if better is None:
            return {"step": last}
        restore_adapter(policy, self._run.best_adapter(better.step))
        print(better.sentence)
        return better.record

    def _worse_than_base(self, step: int) -> Alarm | None:
        """Fewer right answers than the base has, whatever their form, by more than noise."""
        lost = self._looks.lost_to_base(step)
        if lost is None:
            return None
        after, before = lost
        return Alarm(
            "worse than the base",
            f"Of {len(self._questions)} held-out questions {after} are right in any form, {before} before training: it "
            "is making the model worse, whatever the reward says.",
            f"adapter/ will be the {self._settings.keep} step when the run ends (--patience 2 ends it sooner). Better "
            "begin anew: weigh format less (--rewards correctness:4,soft_format:0.5), lower --learning-rate, or set "
            "--beta 0.04.",
        )

    def _no_room(self, base: HeldOutRow) -> Alarm | None:
        """Most of the base's replies do not end: then only short ones can be paid, and learned from."""
        if base["truncated_rate"] <= _CUT_OFF:
            return None
        limit = self._settings.max_completion_length
        return Alarm(
            "no room",
            f"{base['truncated_rate']:.0%} of the base's replies to held-out questions do not end within {limit} "
            "tokens. What fits is paid, and learned in a warm start, so that the model is taught to be short and to "
            "leave out its work; and the scores here are those of such replies.",
            f"Raise --max-completion-length, to {4 * limit} say; evaluate.py --max-completion-length {4 * limit} tells "
            "what the model can do.",
        )


def _share(right: list[bool]) -> dict[str, float]:
    low, high = wilson(sum(right), len(right))
    return {"accuracy": sum(right) / len(right), "low": round(low, 4), "high": round(high, 4)}
