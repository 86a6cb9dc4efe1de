"""What ``--plan`` prints: the memory by part, what was chosen, and what a run takes."""

from __future__ import annotations

import dataclasses
import math

from kit.checkpointing.resuming import as_recorded, check_run_folder
from kit.cli.errors import UserError
from kit.cli.text import duration
from kit.planning.card_memory import ALWAYS, GIB, ROLLOUTS, SCORING, UPDATE, phase_bytes
from kit.planning.gpus import NAMES, card_named
from kit.planning.hardware import BFLOAT16_CAPABILITY, NEWEST_DRIVER, Machine, detect, matrix_flops, requirements_for
from kit.planning.model_shape import ModelShape, model_shape
from kit.planning.plan import Plan, make_plan
from kit.planning.run_cost import RunCost, estimate_run_cost, estimate_run_cost_here
from kit.planning.step_size import questions_asked
from kit.settings.knobs import BATCH_KNOBS, WARM_START_MOST, Settings

_PHASES = {
    ALWAYS: "all the time",
    ROLLOUTS: "while completions are written",
    SCORING: "while they are scored by the policy",
    UPDATE: "while the adapter is updated",
}


_COMPILING_MINUTES = 6  # seen, for 0.5B on an H100 with 16 cores


def print_plan(settings: Settings, longest_prompt: int | None = None) -> None:
    """Print the plan for the card that is named, or for the machine that is here, card or processor.

    Args:
        settings: of the run.
        longest_prompt: in tokens, where the questions are known.

    Raises:
        UserError: it does not fit.
    """
    if settings.gpu == "list":
        print(*filter(_is_for, NAMES), sep="\n")
        return
    machine = card_named(settings.gpu) if settings.gpu else detect()
    requirements = requirements_for(machine) if machine.has_cuda else "requirements-cpu.txt"
    if settings.gpu and requirements == "requirements.txt":  # nobody has asked a driver
        requirements += f" (nvidia-smi shows the driver: below {NEWEST_DRIVER} it is requirements-cuda12.txt)"
    shape = model_shape(settings.model)
    plan = make_plan(_of_its_run(settings), machine, shape, longest_prompt)
    if not machine.has_cuda:
        print(f"{machine.lack}: this is the plan for its processor; --gpu NAME plans for a card, {', '.join(NAMES)}\n")
    where = machine.name if settings.gpus == 1 else f"{settings.gpus} x {machine.name}, of which each has what follows"
    print(f"{settings.model} on {where}: {machine.memory_gib:.1f} GiB, {machine.free_gib:.1f} free\n")
    print(memory_table(plan, machine))
    print("\nchosen")
    for reason in plan.reasons:
        print(f"  {reason}")
    print(f"  packages: pip install --no-deps -r {requirements}\n")
    print(_what_it_takes(plan, shape, machine))
    if settings.gpus > 1:
        print(_beside_one_card(plan, shape, machine))


def _is_for(name: str) -> bool:
    """Are there packages for the card of this name?"""
    try:
        return bool(requirements_for(card_named(name)))
    except UserError:
        return False


def _of_its_run(settings: Settings) -> Settings:
    """What the run in the output folder began with, where training would continue it; says where it would refuse to."""
    try:
        check_run_folder(settings, None)
    except UserError as error:
        print(f"training would be refused: {error}\n")
        return settings
    return as_recorded(settings)


def memory_table(plan: Plan, machine: Machine) -> str:
    """The memory by part and phase, in GiB, and the peak against what is free."""
    lines = []
    for phase, words in _PHASES.items():
        parts = [part for part in plan.parts if part.phase == phase]
        if not parts:
            continue
        lines.append(f"{phase_bytes(plan.parts, phase) / GIB:6.2f} GiB  {words}")
        lines += [f"{part.bytes / GIB:10.2f}      {part.name:28}{part.how}" for part in parts]
    share = plan.peak_gib / machine.free_gib
    lines.append(f"{plan.peak_gib:6.2f} GiB  at most, with 5 % slack: {share:.0%} of what is free. It fits.")
    return "\n".join(lines)


def _what_it_takes(plan: Plan, shape: ModelShape, machine: Machine) -> str:
    assert plan.layout is not None
    settings = plan.settings
    takes = _cost(plan, shape, machine)
    looks = settings.max_steps // settings.eval_every + 2 if settings.eval_every else 0  # before, after, and between
    answering = looks * takes.rollout_s * settings.eval_questions / settings.completions_per_card
    seconds = takes.step_s * settings.max_steps + answering
    time = f"how long {machine.card} takes is not known; training shows the time left from its first step on\n"
    if not math.isnan(seconds):
        time = (
            f"expected, within a factor of {_uncertainty(machine)}: {takes.step_s:.0f} s a step "
            f"({takes.rollout_s:.0f} s of it completions), {duration(seconds)} for {settings.max_steps} steps and "
            f"{looks} looks at up to {settings.eval_questions} held-out questions{_screening(settings, takes)}"
            f"{_warm_start(settings, takes)}{_compiling(plan, machine)}\n"
        )
    return time + (
        f"download {takes.download_gb:.1f} GB, on disk {takes.disk_gb:.1f} GB with checkpoints and merged weights, "
        f"and {shape_gguf_gb(shape):.1f} GB for each f16 GGUF"
    )


def _cost(plan: Plan, shape: ModelShape, machine: Machine) -> RunCost:
    assert plan.layout is not None
    if machine.card is not None:
        return estimate_run_cost(shape, plan.settings, plan.layout, machine.card)
    return estimate_run_cost_here(shape, plan.settings, plan.layout, matrix_flops())


def _beside_one_card(plan: Plan, shape: ModelShape, machine: Machine) -> str:
    """What sharing a step out gains; the recipe's completions stay as many, so that it is the same run."""
    settings = plan.settings
    whole, share = settings.completions_per_step, settings.completions_per_card
    shared = f"{settings.gpus} cards share the {whole} completions of a step: {share} each"
    if machine.card is None:
        return f"{shared}. Processes on one machine share its cores too, so that little is gained"
    one = dataclasses.replace(plan.asked.settings, gpus=1, given=plan.asked.settings.given - {"gpus"})
    if not one.given & set(BATCH_KNOBS):
        one = dataclasses.replace(one, per_device_train_batch_size=whole, gradient_accumulation_steps=1)
    elif set(BATCH_KNOBS) <= one.given:
        one = dataclasses.replace(one, gradient_accumulation_steps=one.gradient_accumulation_steps * settings.gpus)
    try:
        alone = _cost(make_plan(one, machine, shape), shape, machine).step_s
    except UserError:
        return f"{shared}. One card alone does not hold it"
    here = _cost(plan, shape, machine).step_s
    if math.isnan(alone):
        return shared
    gain = alone / here
    said = f"{shared}. A step takes about {here:.1f} s, on one card alone {alone:.1f} s: {gain:.1f} times as fast"
    if gain > settings.gpus / 2:
        return said
    return (
        f"{said}, for {settings.gpus} times the cards: writing a token takes as long for {share} completions as for "
        f"{whole}. --batch-size and --gradient-accumulation-steps give each card more, which is another recipe"
    )


def _screening(settings: Settings, takes: RunCost) -> str:
    """As many questions as the steps ask have their replies; more, where some of them are left out."""
    if not settings.screen:
        return ""
    batches = questions_asked(settings) * settings.num_generations / settings.completions_per_step
    seconds = takes.rollout_s * batches * settings.screen / settings.num_generations
    return f"; screening {duration(seconds)} more, twice that where half of the questions are left out"


def _warm_start(settings: Settings, takes: RunCost) -> str:
    """A reply of each question, and one pass over those that are kept, at most all of them."""
    if settings.warm_start == "off":
        return ""
    asked = WARM_START_MOST if settings.warm_start == "auto" else int(settings.warm_start)
    wanted = ", where one is wanted," if settings.warm_start == "auto" else ""
    return f"; a warm start{wanted} up to {duration(takes.step_s * asked / settings.completions_per_card)} more"


def _uncertainty(machine: Machine) -> str:
    """Of the kernels for cards before the RTX 30xx nobody has timed any yet."""
    return "three" if machine.has_cuda and machine.capability < BFLOAT16_CAPABILITY else "two"


def _compiling(plan: Plan, machine: Machine) -> str:
    if machine.card is None or not plan.choice.use_vllm:
        return ""
    return f"; before the first, vLLM compiles its kernels: up to {_COMPILING_MINUTES} minutes on a machine that is new"


def shape_gguf_gb(shape: ModelShape) -> float:
    """The size of a 16-bit GGUF in GB."""
    return 2 * (shape.linear_parameters + shape.other_parameters) / 1e9
