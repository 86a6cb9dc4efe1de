"""A step: how many completions of how many questions, made up of which passes; how many steps are a pass over all."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from kit.cli.errors import UserError
from kit.settings.knobs import Settings

ENOUGH_TOKENS = 8192  # in one pass: from a few hundred on, cards are limited by arithmetic and more does not go faster


def check_enough(questions: int, settings: Settings) -> None:
    """Refuse fewer questions than one step asks: TRL leaves out what does not fill a step, so none would be taken.

    Raises:
        UserError: with both numbers and what to change.
    """
    completions, group = _completions_at_once(settings), settings.num_generations
    wanted = math.ceil(completions / group)
    if questions >= wanted:
        return
    change = (
        "lower generation_batch_size or steps_per_generation"
        if {"generation_batch_size", "steps_per_generation"} & set(settings.further)
        else f"make --batch-size times --gradient-accumulation-steps {questions * group}"
    )
    change = f", or {change}" if questions else ""
    raise UserError(
        f"--dataset {settings.dataset}: a step asks {wanted} questions ({completions} completions in groups of {group})"
        f", and there {'is 1' if questions == 1 else f'are {questions}'}: give more{change}"
    )


def questions_asked(settings: Settings) -> int:
    """How many questions all steps ask, each counted as often as it is asked: a batch may serve several updates."""
    at_once, updates = _completions_at_once(settings), int(settings.further.get("num_iterations", 1))
    batches = math.ceil(settings.max_steps * _completions_a_step(settings) / (at_once * updates))
    return batches * at_once // settings.num_generations


def with_steps(settings: Settings, questions: int) -> Settings:
    """The settings with the optimizer steps, at least one, that ``settings.epochs`` passes over the questions are."""
    if settings.epochs is None or not questions:
        return settings
    at_once = _completions_at_once(settings)
    batches = max(1, questions * settings.num_generations // at_once)
    updates = int(settings.further.get("num_iterations", 1)) * at_once / _completions_a_step(settings)
    steps = max(1, math.ceil(settings.epochs * batches * updates))
    print(
        f"num_train_epochs {settings.epochs:g} over {questions} questions: {steps} steps, as with --max-steps {steps}"
    )
    return dataclasses.replace(settings, max_steps=steps, given=settings.given | {"max_steps"}, epochs=None)


def _completions_a_step(settings: Settings) -> int:
    """As the plan makes it up: how a step is split into passes depends on the card, their product does not."""
    return math.prod(ways_to_make_up_a_step(settings, ENOUGH_TOKENS)[0].values()) * settings.gpus


def _completions_at_once(settings: Settings) -> int:
    """The completions of one batch of rollouts: those of a step, unless a further field of TRL's says otherwise."""
    passes = settings.further.get("steps_per_generation")
    if passes and "per_device_train_batch_size" in settings.given:
        return settings.per_device_train_batch_size * int(passes) * settings.gpus
    return int(settings.further.get("generation_batch_size") or _completions_a_step(settings))


def ways_to_make_up_a_step(settings: Settings, enough_tokens: int) -> list[dict[str, Any]]:
    """Ways to make up one step, from the largest pass (of at most ``enough_tokens``, where it is open) to the smallest.

    The completions of a step stay as near to the default (or a continued run's) as the group size allows: they belong
    to the recipe, how many go through in one pass does not.
    """
    rows, accumulation = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    rows_given = "per_device_train_batch_size" in settings.given
    accumulation_given = "gradient_accumulation_steps" in settings.given
    if rows_given and accumulation_given:
        return [{"per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation}]
    group, cards = settings.num_generations, settings.gpus
    if rows_given or accumulation_given:
        given, target = rows if rows_given else accumulation, Settings().completions_per_step
        other = min(
            (n for n in range(1, group * max(1, target // given) + group + 1) if given * n * cards % group == 0),
            key=lambda n: abs(given * n * cards - target),
        )
        pairs = [(given, other) if rows_given else (other, given)]
    else:
        step = max(1, round(settings.completions_per_step / group)) * group // cards  # shared_out saw that it can be
        most = max(1, enough_tokens // (settings.max_prompt_length + settings.max_completion_length))
        pairs = [(rows, step // rows) for rows in range(min(step, most), 0, -1) if step % rows == 0]
    return [{"per_device_train_batch_size": r, "gradient_accumulation_steps": a} for r, a in pairs]
