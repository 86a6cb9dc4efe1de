"""A good start: a few supervised steps on the model's own replies in format, where GRPO alone would find nothing.

GRPO learns from what differs within a group. Where a base never comes upon the form, all its completions earn nothing,
and it stays so; where it does now and then, GRPO teaches it the form first, and some of its sums are lost on the way.
Shown a worked example it can often keep to the form; what it wrote then is what it learns to write without one. No text
but its own, so that it learns the form and little else.
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kit import ranks
from kit.chat_templates import fitted
from kit.checkpointing.adapter_weights import check_weights, restore_adapter
from kit.cli.progress import progress
from kit.cli.signals import StopRequest
from kit.generation.engine import Engine
from kit.prompts import build_prompt
from kit.settings.knobs import WARM_START_MOST, WARM_START_QUESTIONS, Settings
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder
from kit.task.questions import Row
from kit.task.task import worked_example
from kit.task.user_rewards import Rewards
from kit.task.worked_example import with_example
from kit.training.own_replies import OwnReply, format_share, look, replies_in_parts
from kit.training.policy_engine import answering
from kit.training.random_states import same_random_numbers
from kit.training.run_record import save_weights
from kit.training.trainer import hold_adapter_in_float32, that_fit

_LOOK_GROUPS = 4
# From these shares on, of groups that earn different rewards and of completions in format, GRPO finds its way alone.
# Qwen2.5-Coder-0.5B, below them, finds the form alone, in some 200 completions, and loses sums: benchmarks/README.md.
_SPREAD, _IN_FORMAT = 0.5, 0.5
_FEWEST, _ENOUGH_RIGHT = 8, 24  # replies to learn from; of right ones, so that the wrong can be left out
_ROWS, _RATE = 4, 3e-4  # replies a step, and its peak rate
_PASSES = 4  # over them at most: one is enough for a model of 0.5 B, a smaller one forgets the form again
_TRIED, _SURE = 16, 0.5  # completions after each pass, and the share in format that ends them


class WarmStart:
    """The warm start of a run that has not made a step yet.

    Args:
        settings: of the run.
        run: its folder.
        questions: that are trained on and short enough.
        rewards: functions and weights.
        arguments: of the training that follows, as TRL's trainer gets them.
        stop: asked whether somebody wants to stop.
    """

    def __init__(
        self,
        settings: Settings,
        run: RunFolder,
        questions: list[Row],
        rewards: Rewards,
        arguments: dict[str, Any],
        stop: StopRequest,
    ) -> None:
        self._settings, self._run, self._rewards, self._stop = settings, run, rewards, stop
        self._arguments = arguments
        self._questions = random.Random(settings.seed).sample(questions, len(questions))

    def begin(self, policy: Any, tokenizer: Any, engine: Callable[[], Engine]) -> bool:
        """Do it where it is wanted, or take what an earlier start of the same run did.

        Args:
            policy: with an adapter that changes nothing yet.
            tokenizer: of it.
            engine: gives one that answers as the policy does then.

        Returns:
            Is the policy another one than before?
        """
        if self._settings.warm_start == "off" or ranks.told(self._facts().get("done")) is False:
            return False
        if ranks.told(self._run.warm_start.is_dir()):
            restore_adapter(policy, self._run.warm_start)
        else:
            wanted = ranks.by_first(lambda: self._is_wanted(self._with_look(policy, tokenizer, engine)))
            if not wanted or not self._trained(policy, tokenizer, engine):
                return False
        if not _refer_to(policy) and self._settings.beta:
            print(
                "--beta compares with the base here, not with the warm start: on a card Unsloth keeps no copy of that"
            )
        return True

    def facts(self) -> dict[str, Any]:
        """What run.yaml says of it; empty where nothing was done or decided."""
        facts = self._facts()
        return {"warm_start": facts} if facts else {}

    def _facts(self) -> dict[str, Any]:
        file = self._run.warm_start_file
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def _write(self, facts: dict[str, Any]) -> dict[str, Any]:
        write_whole(self._run.warm_start_file, json.dumps(facts, indent=1) + "\n")
        return facts

    def _with_look(self, policy: Any, tokenizer: Any, engine: Callable[[], Engine]) -> dict[str, Any]:
        """The facts, with a look at a few groups where that decides."""
        facts = self._facts()
        if "look" in facts or self._settings.warm_start != "auto":
            return facts
        with same_random_numbers(), answering(policy):
            chosen = self._questions[:_LOOK_GROUPS]
            seen = look(engine(), chosen, self._settings, tokenizer, self._rewards)
        return self._write(facts | {"look": dict(seen)})

    def _is_wanted(self, facts: dict[str, Any]) -> bool:
        """Decide by the look, and say so."""
        if self._settings.warm_start != "auto":
            return True
        seen = facts["look"]
        spread = f"{round(seen['with_spread'] * seen['groups'])} of {seen['groups']} groups have spread"
        said = f"{spread}, {seen['format_rate']:.0%} of their completions are in format"
        if seen["with_spread"] >= _SPREAD and seen["format_rate"] >= _IN_FORMAT:
            self._write(facts | {"done": False})
            print(f"no warm start: {said}")
            return False
        print(f"warm start: {said} (--warm-start off begins without)")
        return True

    def _trained(self, policy: Any, tokenizer: Any, engine: Callable[[], Engine]) -> bool:
        template = tokenizer.chat_template

        def in_format() -> float:
            with answering(policy):
                return format_share(engine(), self._questions[:_TRIED], self._settings, template)

        with same_random_numbers():
            kept, facts = ranks.by_first(lambda: self._material(policy, tokenizer, engine))
            if ranks.agree_on(self._stop) or not kept:
                return False
            for number in range(1, _PASSES + 1):
                self._learn(policy, tokenizer, kept, number)
                if ranks.agree_on(self._stop):
                    return False
                share = ranks.by_first(in_format)
                facts |= {"passes": number, "format_after": share}
                print(f"{share:.0%} of {_TRIED} completions are in format after pass {number}")
                if share >= _SURE:
                    break
        check_weights(policy, 0)
        ranks.by_first(lambda: self._keep(policy, tokenizer, facts))
        return True

    def _keep(self, policy: Any, tokenizer: Any, facts: dict[str, Any]) -> None:
        self._write(facts | {"done": True})
        save_weights(policy, tokenizer, self._run.warm_start)

    def _material(
        self, policy: Any, tokenizer: Any, engine: Callable[[], Engine]
    ) -> tuple[list[OwnReply], dict[str, Any]]:
        """The replies to learn from, none where they are too few, and what is to be said of them."""
        questions = self._short_enough(tokenizer)
        if len(questions) < _FEWEST:
            self._write(self._facts() | {"done": False})
            print(
                f"no warm start: it takes the replies to {_FEWEST} questions at least, and there are {len(questions)}"
            )
            return [], {}
        with answering(policy):
            replies = self._replies(engine(), questions, tokenizer.chat_template)
        kept = _worth_learning(replies)
        facts = self._facts() | _counted(replies, kept)
        if self._stop.signal is not None or len(kept) >= _FEWEST:
            return kept, facts
        self._write(facts | {"done": False})
        print(
            f"no warm start: {len(kept)} of {len(replies)} replies are in format, with a worked example or without, "
            "too few to learn from: a larger base may find more, or a --worked-example that is nearer to your questions"
        )
        return [], facts

    def _replies(self, engine: Engine, questions: list[Row], template: str) -> list[OwnReply]:
        """As many as the user says, or as it takes to learn from right ones alone, where that is within reach."""

        def asked(count: int) -> list[OwnReply]:
            stopped = lambda: self._stop.signal is not None  # noqa: E731
            return replies_in_parts(engine, questions[:count], self._settings, template, self._run, stopped)

        if self._settings.warm_start != "auto":
            return asked(int(self._settings.warm_start))
        first = asked(WARM_START_QUESTIONS)[:WARM_START_QUESTIONS]  # a run that goes on may have more already
        wanted = min(questions_for_enough_right(first), len(questions))
        if wanted <= len(first) or self._stop.signal is not None:
            return first
        right = f"{len(_right(first))} of {len(first)}"
        print(f"{right} replies are right: {wanted} questions, so that right ones alone are learned from")
        return asked(wanted)

    def _short_enough(self, tokenizer: Any) -> list[Row]:
        """The questions that fit with the example before them too."""
        example = worked_example(self._settings)
        return that_fit(
            self._questions, tokenizer, self._settings,
            lambda question: with_example(build_prompt(question, self._settings.prompt()), example),
        )  # fmt: skip

    def _learn(self, policy: Any, tokenizer: Any, kept: list[OwnReply], number: int) -> None:
        """One pass of TRL's SFTTrainer over the replies, each to its question without the example."""
        import datasets
        from transformers import PrinterCallback, TrainerCallback
        from trl import SFTConfig, SFTTrainer

        settings, stop = self._settings, self._stop
        template = tokenizer.chat_template
        rows = [
            {
                "prompt": fitted(build_prompt(line["question"], settings.prompt()), template),
                "completion": [{"role": "assistant", "content": line["reply"]}],
            }
            for line in kept
        ]
        with (
            tempfile.TemporaryDirectory() as folder,
            progress(f"warm start, pass {number}", -(-len(rows) // _ROWS)) as bar,
        ):

            class Advancing(TrainerCallback):
                def on_step_end(self, _, __, control, **___):
                    bar.advance()
                    control.should_training_stop |= ranks.agree_on(stop)

            datasets.disable_progress_bars()  # five of them, for a second's work
            trainer = SFTTrainer(
                model=policy, processing_class=tokenizer, train_dataset=datasets.Dataset.from_list(rows),
                args=SFTConfig(output_dir=folder, **self._sft_arguments()), callbacks=[Advancing()],
            )  # fmt: skip
            hold_adapter_in_float32(policy)
            datasets.enable_progress_bars()
            trainer.remove_callback(PrinterCallback)
            with _unprepared_again(policy):
                trainer.train()
        for parameter in policy.parameters():
            parameter.grad = None

    def _sft_arguments(self) -> dict[str, Any]:
        """The fields of TRL's SFTConfig: the number types and the memory are those of the training that follows."""
        settings = self._settings
        rows = max(1, _ROWS // ranks.count())
        at_once = min(rows, settings.per_device_train_batch_size)
        as_in_training = (
            "bf16", "fp16", "gradient_checkpointing", "optim", "weight_decay", "seed", "ddp_find_unused_parameters",
        )  # fmt: skip
        return {name: self._arguments[name] for name in as_in_training if name in self._arguments} | {
            "num_train_epochs": 1, "per_device_train_batch_size": at_once,
            "gradient_accumulation_steps": rows // at_once, "learning_rate": _RATE, "lr_scheduler_type": "linear",
            "warmup_steps": 2, "max_length": settings.max_prompt_length + settings.max_completion_length,
            "completion_only_loss": True, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
            "logging_strategy": "no",
        }  # fmt: skip


@contextmanager
def _unprepared_again(policy: Any) -> Iterator[None]:
    """accelerate puts a trainer's number type around the model's forward, marks the model as prepared, and leaves both
    there; the next trainer would find the mark, and do without a number type."""
    names = ("forward", "_original_forward", "_is_accelerate_prepared")
    before = {name: policy.__dict__[name] for name in names if name in policy.__dict__}
    try:
        yield
    finally:
        for name in names:
            policy.__dict__.pop(name, None)
        policy.__dict__.update(before)


def questions_for_enough_right(replies: list[OwnReply]) -> int:
    """How many questions find enough right replies, some to spare, by the share among these; as many as these where
    there are enough, or where it would take more than WARM_START_MOST."""
    right, count = len(_right(replies)), len(replies)
    wanted = math.ceil(1.25 * count * _ENOUGH_RIGHT / right) if 0 < right < _ENOUGH_RIGHT else count
    return wanted if wanted <= WARM_START_MOST else count


def _right(replies: list[OwnReply]) -> list[OwnReply]:
    return [line for line in replies if line["in_format"] and line["strict"]]


def _worth_learning(replies: list[OwnReply]) -> list[OwnReply]:
    """The right ones where there are enough of them, else all that are in format."""
    right = _right(replies)
    return right if len(right) >= _ENOUGH_RIGHT else [line for line in replies if line["in_format"]]


def _counted(replies: list[OwnReply], kept: list[OwnReply]) -> dict[str, Any]:
    return {
        "asked": len(replies),
        "in_format": sum(line["in_format"] for line in replies),
        "right": sum(line["strict"] for line in replies),
        "learned_from": len(kept),
    }


def _refer_to(policy: Any) -> bool:
    """A KL term compares with where GRPO begins: TRL's frozen copy becomes this adapter. Is there such a copy?

    Unsloth takes it out of TRL's trainer on a card, and compares with the base, the adapter switched off.
    """
    import torch

    copies = {name: parameter for name, parameter in policy.named_parameters() if ".ref." in name}
    with torch.no_grad():
        for name, parameter in copies.items():
            parameter.copy_(policy.get_parameter(name.replace(".ref.", ".default.")))
    return bool(copies)
