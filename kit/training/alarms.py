"""What a run is told when something goes wrong: each alarm with what it means and what to try.

Each rule is a pure function of the steps so far (newest last). Thresholds look at several steps, because single steps
of GRPO are noisy; they are chosen so that the kit's healthy runs trigger none (tests/training/test_alarms.py).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.prompts import parse_reply, tags

SILENT_STEPS = 20  # an alarm that was raised is not raised again for so many steps
_FEW, _MANY, _LONG = 5, 10, 25  # steps that a rule looks at
_PHRASE_WORDS = 8
_LOOP = 4  # times that a reply says one sentence
_FEWEST_QUESTIONS = 4  # a phrase that all replies to one question share is no tic


@dataclass(frozen=True)
class Alarm:
    """One alarm: its short name, what it means, and what to try."""

    name: str
    means: str
    advice: str

    @property
    def sentence(self) -> str:
        """For the console."""
        return f"{self.means} {self.advice}"


@dataclass
class Step:
    """What the rules see of a step: its line of metrics.jsonl, and its replies."""

    metrics: Mapping[str, Any]
    questions: Sequence[str] = ()
    replies: Sequence[str] = ()
    rewards: Mapping[str, Sequence[float | None]] = field(default_factory=dict)

    def get(self, name: str) -> float:
        """A number of the step; NaN where it was not logged."""
        value = self.metrics.get(name)
        return math.nan if value is None else float(value)


class AlarmMonitor:
    """Keeps the last steps and says which alarms a new one raises.

    Args:
        maxima: the most that a reward function can pay; functions that are not named are not judged.
        earlier: lines of metrics.jsonl from an earlier part of the run.
    """

    def __init__(self, maxima: dict[str, float], earlier: Sequence[dict[str, Any]] = ()) -> None:
        self.maxima = maxima
        self.steps = [Step(row) for row in earlier]
        self._raised = {alarm["name"]: row["step"] for row in earlier for alarm in row.get("alarms", [])}

    def check(self, step: Step) -> list[Alarm]:
        """The alarms that ``step`` raises, without those of the last ``SILENT_STEPS`` steps."""
        self.steps.append(step)
        for old in self.steps[-_FEW - 1 : -_FEW]:  # texts are needed of a few steps only
            old.questions, old.replies = (), ()
        number = step.metrics["step"]
        found = [alarm for rule in RULES if (alarm := rule(self.steps))]
        found += _over_maximum(step, self.maxima)
        new = [alarm for alarm in found if number - self._raised.get(alarm.name, -SILENT_STEPS) >= SILENT_STEPS]
        self._raised |= {alarm.name: number for alarm in new}
        return new


def _batches(steps: Sequence[Step]) -> list[Step]:
    """The last few steps that wrote completions: with ``num_iterations`` above 1 the others learn from these again."""
    return [step for step in steps if not step.metrics.get("again")][-_FEW:]


def _mean(steps: Sequence[Step], name: str) -> float:
    """The mean over those steps that have the number; NaN where none has."""
    values = [value for step in steps if not math.isnan(value := step.get(name))]
    return sum(values) / len(values) if values else math.nan


def _no_spread(steps: Sequence[Step]) -> Alarm | None:
    share = _mean(batches := _batches(steps), "groups_without_spread")
    if len(batches) < _FEW or not share > 0.5:
        return None
    return Alarm(
        "no spread",
        f"In {share:.0%} of the groups all completions earn the same, so nothing is learned from them.",
        "If they are all wrong, take easier questions or a better base; if all right, harder ones; or raise "
        "--num-generations or --temperature.",
    )


def _cut_off(steps: Sequence[Step]) -> Alarm | None:
    share = _mean(batches := _batches(steps), "truncated_rate")
    if len(batches) < _FEW or not share > 0.5:
        return None
    return Alarm(
        "cut off",
        f"{share:.0%} of the completions are cut off before their end and can hardly earn anything.",
        "Raise --max-completion-length, or reward short replies.",
    )


def _length(steps: Sequence[Step]) -> Alarm | None:
    if len(steps) < 2 * _FEW:
        return None
    reference = steps[max(0, len(steps) - SILENT_STEPS - _FEW) :][:_FEW]
    before, now = _mean(reference, "completion_length"), _mean(steps[-_FEW:], "completion_length")
    if now < before / 3:
        return Alarm(
            "length collapse",
            f"Completions have become {now:.0f} tokens long, from {before:.0f}: the model is leaving out its work.",
            "Look at samples.jsonl; lower --learning-rate, or take away what pays for short replies.",
        )
    if now > 3 * before:
        return Alarm(
            "length explosion",
            f"Completions have become {now:.0f} tokens long, from {before:.0f}: the model rambles or repeats itself.",
            "Look at samples.jsonl; lower --learning-rate, or add a reward that falls with length.",
        )
    return None


def _format_only(steps: Sequence[Step]) -> Alarm | None:
    earlier, later = steps[-2 * _LONG : -_LONG], steps[-_LONG:]
    if len(steps) < 2 * _LONG or not _mean([*earlier, *later], "format_rate") > 0.9:
        return None
    before, now = _mean(earlier, "correct_rate"), _mean(later, "correct_rate")
    if now > 0.95 or now > before:
        return None
    return Alarm(
        "correctness stands still",
        f"For {2 * _LONG} steps the replies have been in format, but no more of them are right ({now:.0%}).",
        "The model may have learned all that it can from these questions: stop here and evaluate, take harder ones, or "
        "weigh correctness more.",
    )


def _empty_reasoning(steps: Sequence[Step]) -> Alarm | None:
    parsed = [parse_reply(reply) for step in steps[-_FEW:] for reply in step.replies]
    empty = sum(reply.reasoning is not None and not reply.reasoned for reply in parsed)
    if empty <= len(parsed) / 2:
        return None
    return Alarm(
        "empty reasoning",
        f"{empty} of {len(parsed)} replies say nothing in their reasoning block.",
        "Something pays without reasoning: see what with `python rewards.py --explain` on a reply of samples.jsonl.",
    )


def _one_phrase(steps: Sequence[Step]) -> Alarm | None:
    recent = [pair for step in steps[-_FEW:] for pair in zip(step.questions, step.replies, strict=True)]
    if len({question for question, _ in recent}) < _FEWEST_QUESTIONS:
        return None
    found: Counter[str] = Counter()
    for _, reply in recent:
        text = reply
        for tag in tags():
            text = text.replace(tag, " ")
        words = text.split()
        found.update({" ".join(words[i : i + _PHRASE_WORDS]) for i in range(len(words) - _PHRASE_WORDS + 1)})
    phrase, times = max(found.items(), key=lambda item: item[1], default=("", 0))
    if times <= 0.6 * len(recent):
        return None
    return Alarm(
        "one phrase",
        f"{times} of {len(recent)} replies to different questions hold the same words: “{phrase}”.",
        "The model may repeat what once paid: look at samples.jsonl, lower --learning-rate, or raise --beta.",
    )


def _loops(steps: Sequence[Step]) -> Alarm | None:
    batches = [step.replies for step in _batches(steps) if step.replies]
    replies = [reply for batch in batches for reply in batch]
    looping = sum(_most_said(reply) >= _LOOP for reply in replies)
    if len(batches) < _FEW or not looping > len(replies) / 10:
        return None
    return Alarm(
        "loops",
        f"{looping} of {len(replies)} replies say one sentence {_LOOP} times or more: they go round in circles, and "
        "punishing that teaches little, because the model is sure of each of its words by then.",
        "If the base does so too, take a larger one. Otherwise the steps are too large: begin anew with half the "
        "--learning-rate, or with --beta 0.04; --finish keeps the best step so far by held-out score.",
    )


def _most_said(reply: str) -> int:
    """How often a reply says its most frequent sentence; a sentence ends with its line, or with a stop and a space."""
    sentences = (sentence.strip() for sentence in re.split(r"\n|(?<=[.!?])\s", reply))
    return max(Counter(sentence for sentence in sentences if len(sentence.split()) > 2).values(), default=0)


def _entropy(steps: Sequence[Step]) -> Alarm | None:
    if len(steps) < 2 * _MANY:
        return None
    before, now = _mean(steps[:_MANY], "entropy"), _mean(steps[-_MANY:], "entropy")
    if not now < 0.1 * before:
        return None
    return Alarm(
        "entropy collapse",
        f"The entropy of the policy has fallen to {now:.3f} from {before:.3f}: all its completions are becoming one.",
        "Nothing new is tried any more: lower --learning-rate, raise --beta, or stop and evaluate.",
    )


def _gradient(steps: Sequence[Step]) -> Alarm | None:
    recent = steps[-_FEW:]
    broken = sum(
        bool(step.metrics.get("skipped")) or ("grad_norm" in step.metrics and not math.isfinite(step.get("grad_norm")))
        for step in recent
    )
    if broken < 2 and not (broken and len(steps) > _MANY):  # in float16 the first steps find their scale by skipping
        return None
    return Alarm(
        "gradient",
        f"In {broken} of the last {len(recent)} steps the gradient was no number, so the step was skipped.",
        "A skip now and then is usual in float16; if they go on, lower --learning-rate or --max-grad-norm.",
    )


def _same_reward(steps: Sequence[Step]) -> Alarm | None:
    batches = [step.metrics for step in steps if not step.metrics.get("again")]
    if len(batches) < _MANY:
        return None
    last = batches[-1].get("rewards", {})
    same = [name for name in last if all(_paid_all(metrics, name) == last[name] for metrics in batches)]
    if not same:
        return None
    paid = ", ".join(f"{name} {'no verdict' if last[name] is None else format(last[name], 'g')}" for name in same)
    return Alarm(
        "same reward",
        f"Since the start every completion has earned the same, in {len(batches)} steps: {paid}. Nothing is learned "
        "from that.",
        "See whether a reply of samples.jsonl could earn anything else: to own functions `answer` is the checked "
        "number as a text, and `solution` the untouched text of the data.",
    )


def _paid_all(metrics: Mapping[str, Any], name: str) -> float | None:
    """What a reward function paid for every completion of a step; NaN, which equals nothing, where it differs."""
    return math.nan if metrics.get("rewards_std", {}).get(name) else metrics.get("rewards", {}).get(name, math.nan)


def _ratio(steps: Sequence[Step]) -> Alarm | None:
    ratio = _mean(batches := _batches(steps), "sampling_ratio")
    if len(batches) < _FEW or math.isnan(ratio) or 0.9 <= ratio <= 1.1:
        return None
    return Alarm(
        "vLLM differs",
        f"The policy finds vLLM's completions {ratio:.2f} times as likely as vLLM itself does, which should be 1: the "
        "gradients are scaled or masked by that.",
        "Go on with --vllm off. Where sampling_difference was like this from the first step on, try other packages. "
        "Small differences add up in a long completion: --sampling-correction token_truncate, the default, weighs each "
        "token by itself.",
    )


def _unchanged(steps: Sequence[Step]) -> Alarm | None:
    if "adapter_norm" not in steps[-1].metrics or len(steps) <= _MANY:
        return None
    if any(step.get("adapter_norm") != steps[-1].get("adapter_norm") for step in steps[-_MANY:]):
        return None
    return Alarm(
        "unchanged",
        f"The adapter's weights have not changed in {_MANY} steps: nothing is learned.",
        "See whether groups have spread and steps are skipped; else raise --learning-rate.",
    )


def _over_maximum(step: Step, maxima: dict[str, float]) -> list[Alarm]:
    over = {
        name: max(paid)
        for name, rewards in step.rewards.items()
        if name in maxima
        and (paid := [value for value in rewards if value is not None])
        and max(paid) > maxima[name] + 1e-6
    }
    return [
        Alarm(
            "over the maximum",
            f"The reward {name} paid {value:g}, but {maxima[name]:g} is the most that it can be.",
            "The function is wrong: stop and mend it.",
        )
        for name, value in list(over.items())[:1]
    ]


RULES: tuple[Callable[[Sequence[Step]], Alarm | None], ...] = (
    _no_spread, _cut_off, _length, _format_only, _empty_reasoning, _one_phrase, _loops, _entropy, _gradient, _unchanged,
    _same_reward, _ratio,
)  # fmt: skip
