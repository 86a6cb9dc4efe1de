"""How many questions a step asks: are there enough of them, and how many steps are some passes over all?"""

from __future__ import annotations

import dataclasses
import math

from kit.cli.errors import UserError
from kit.planning.hardware import Machine
from kit.planning.plan import make_plan
from kit.settings.knobs import Settings


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
    anywhere = dataclasses.replace(settings, vllm="off")
    return make_plan(anywhere, Machine(card=None), None).settings.completions_per_step


def _completions_at_once(settings: Settings) -> int:
    """The completions of one batch of rollouts: those of a step, unless a further field of TRL's says otherwise."""
    passes = settings.further.get("steps_per_generation")
    if passes and "per_device_train_batch_size" in settings.given:
        return settings.per_device_train_batch_size * int(passes) * settings.gpus
    return int(settings.further.get("generation_batch_size") or _completions_a_step(settings))
