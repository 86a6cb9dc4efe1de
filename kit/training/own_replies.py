"""Replies of the policy to training questions, as its start needs them: groups of completions for the rewards to tell
apart, and replies that are asked for with a worked example.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypedDict, cast

from kit.chat_templates import fitted
from kit.cli.progress import progress
from kit.generation.engine import Completion, Conversation, Engine, Sampling
from kit.grading import verdicts
from kit.prompts import build_prompt, parse_reply, tags
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder, append_jsonl, read_jsonl
from kit.task.questions import Row
from kit.task.reward_columns import with_columns
from kit.task.task import worked_example
from kit.task.user_rewards import Rewards
from kit.task.worked_example import with_example

_TEMPERATURE = 0.7  # of the replies that are learned from: surer than rollouts, and still all different
_PART = 32  # replies that are drawn with one seed and written down together: a kill costs no more than these


class OwnReply(TypedDict):
    """A line of warm_start.jsonl."""

    question: str
    gold: str
    reply: str
    example: bool  # was asked with the worked example
    strict: bool
    flexible: bool
    in_format: bool


class Look(TypedDict):
    """What a few groups of the untrained policy's completions say, as shares."""

    groups: int
    with_spread: float
    format_rate: float


def look(engine: Engine, questions: list[Row], settings: Settings, tokenizer: Any, rewards: Rewards) -> Look:
    """A group of completions for each question, rewarded as in training: is there anything to learn from?"""
    count, template = settings.num_generations, tokenizer.chat_template
    rows = [number for number in range(len(questions)) for _ in range(count)]
    replies = drawn(engine, [questions[row] for row in rows], settings, template, settings.seed)
    texts = [reply.text for reply in replies]
    prompts = [build_prompt(questions[row]["question"], settings.prompt()) for row in rows]
    of_the_trainer = _passed_by_the_trainer(replies, tokenizer, settings)
    earned = _earned([fitted(prompt, template) for prompt in prompts], texts, rows, questions, rewards, of_the_trainer)
    groups = [earned[start : start + count] for start in range(0, len(rows), count)]
    return {
        "groups": len(groups),
        "with_spread": sum(max(group) - min(group) > 1e-6 for group in groups) / len(groups),
        "format_rate": sum(parse_reply(text).soft for text in texts) / len(texts),
    }


def format_share(engine: Engine, questions: list[Row], settings: Settings, template: str) -> float:
    """The share in format of one completion for each question."""
    replies = drawn(engine, questions, settings, template, settings.seed)
    return sum(parse_reply(reply.text).soft for reply in replies) / len(replies)


def drawn(engine: Engine, questions: list[Row], settings: Settings, template: str, seed: int) -> list[Completion]:
    """One completion for each of the questions, which may stand there more than once, drawn as rollouts are."""
    prompts = [fitted(build_prompt(row["question"], settings.prompt()), template) for row in questions]
    sampling = Sampling(settings.max_completion_length, settings.temperature, seed)
    replies = {place: reply for batch in engine.generate(prompts, sampling) for place, reply in batch}
    return [replies[place] for place in range(len(questions))]


def _passed_by_the_trainer(replies: list[Completion], tokenizer: Any, settings: Settings) -> dict[str, Any]:
    """What TRL passes to reward functions besides texts and columns, as before its first step."""
    from transformers import TrainerState

    ids = tokenizer([reply.text for reply in replies], add_special_tokens=False)["input_ids"]
    ends = [[] if reply.truncated else [tokenizer.eos_token_id] for reply in replies]
    return {
        "completion_ids": [[*tokens, *end] for tokens, end in zip(ids, ends, strict=True)],
        "trainer_state": TrainerState(max_steps=settings.max_steps), "log_extra": _nothing, "log_metric": _nothing,
    }  # fmt: skip


def _earned(
    prompts: list[Conversation],
    texts: list[str],
    rows: list[int],
    questions: list[Row],
    rewards: Rewards,
    of_the_trainer: dict[str, Any],
) -> list[float]:
    """The weighted sum of each completion's rewards, as TRL makes it."""
    totals = [0.0] * len(texts)
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    for function, weight in zip(*rewards, strict=True):
        results = with_columns(function, questions)(
            prompts=prompts, completions=completions, row=rows, **of_the_trainer
        )
        for place, result in enumerate(results):
            if result is not None and not math.isnan(result):
                totals[place] += weight * result
    return totals


def _nothing(*_: Any, **__: Any) -> None:
    """A look is no step, and logs none."""


def replies_in_parts(
    engine: Engine,
    questions: list[Row],
    settings: Settings,
    template: str,
    run: RunFolder,
    stopped: Callable[[], bool],
) -> list[OwnReply]:
    """A reply to each question; those that an earlier start wrote are not asked for again.

    The first part is asked with the worked example and the opening tag as the reply's beginning, without which the
    smallest models often begin in the middle; the second part without either, the others in the way that brought more
    replies in format: some models are led astray by a conversation that goes on.

    Args:
        engine: of the policy.
        questions: that are asked.
        settings: of the run.
        template: the chat template.
        run: in whose ``warm_start.jsonl`` the replies are kept.
        stopped: asked before each part whether somebody wants to stop.

    Returns:
        All replies, or those until it was stopped.
    """
    example = worked_example(settings)
    found = cast(list[OwnReply], read_jsonl(run.warm_start_replies))
    with progress("replies for a warm start", len(questions), len(found)) as bar:
        while len(found) < len(questions) and not stopped():
            part = questions[len(found) : len(found) + _PART]
            shown = _example_helps(found)
            prompts = [build_prompt(row["question"], settings.prompt()) for row in part]
            prompts = [fitted(with_example(prompt, example) if shown else prompt, template) for prompt in prompts]
            begun = tags()[0] if shown else ""
            if begun:
                prompts = [[*prompt, {"role": "assistant", "content": begun}] for prompt in prompts]
            sampling = Sampling(settings.max_completion_length, _TEMPERATURE, settings.seed + len(found))
            replies = {place: reply.text for batch in engine.generate(prompts, sampling) for place, reply in batch}
            lines = [_judged(row, begun + replies[place], shown) for place, row in enumerate(part)]
            append_jsonl(run.warm_start_replies, *lines)
            found += lines
            bar.advance(len(lines), note=f"{sum(line['in_format'] for line in found)} in format")
    return found


def _example_helps(found: list[OwnReply]) -> bool:
    """Is the next part asked with the example?"""
    if len(found) <= _PART:
        return not found
    with_it, without = (sum(line["in_format"] for line in found if line["example"] is shown) for shown in (True, False))
    asked_with = sum(line["example"] for line in found)
    return with_it * (len(found) - asked_with) >= without * asked_with


def _judged(row: Row, reply: str, shown: bool) -> OwnReply:
    gold = str(row["answer"])
    said = verdicts(reply, gold)
    return {"question": row["question"], "gold": gold, "reply": reply, "example": shown, **said}  # type: ignore
