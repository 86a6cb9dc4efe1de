"""Before anything wakes: what is chosen for the machine, and whether the run fits.

What the user set is kept; what they left open is chosen. Layouts are tried from the largest to the smallest and the
first that fits is taken, so more memory never gives a smaller plan. On a card more completions in one pass, then vLLM,
then full-length completions are given up, in this order; on a processor more completions in one pass, then keeping the
activations, then full length.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from kit.cli.errors import UserError
from kit.planning.card_memory import GIB, Layout, Part, memory_parts, peak_bytes, taken_parts, vllm_bytes
from kit.planning.engine_choice import EngineChoice, choose_engine, does_not_fit
from kit.planning.hardware import Machine, requirements_for
from kit.planning.model_shape import ModelShape
from kit.planning.processor_memory import processor_parts, unpacks
from kit.planning.step_size import ENOUGH_TOKENS, ways_to_make_up_a_step
from kit.settings.knobs import Settings

_USABLE = 0.95  # of the free memory: what other programs take in the meantime comes out of the rest
_FEWEST_SEQUENCES = 4
_ENOUGH_ON_A_PROCESSOR = 2048  # tokens in one pass, beyond which a processor is no faster
_MOST_RESERVE_GIB = 1.0  # beyond the estimate of what vLLM needs, where there is room: it becomes cache
_LARGE_HIDDEN, _CLEAR_GAIN = 512, 1.5  # from which size of a model, and gain of a product on, a pass gains too
_SHORTER = (384, 256)  # lengths that are tried where the default cannot be had
_MOST_SHARE = 0.95


class Asked(NamedTuple):
    """What a plan was made from."""

    settings: Settings
    machine: Machine
    shape: ModelShape | None
    longest_prompt: int | None


@dataclass(frozen=True)
class Plan:
    """Settings with the open ones filled in, and how the run is laid out in memory.

    ``layout`` and ``parts`` are there where the model's shape is known; ``memory_share`` is what vLLM may take of the
    card's free memory.
    ``reasons`` says in sentences what was chosen and why; ``asked`` is what ``make_plan`` was told.
    """

    settings: Settings
    choice: EngineChoice
    layout: Layout | None
    parts: list[Part]
    memory_share: float
    reasons: list[str]
    asked: Asked

    def without_vllm(self) -> Plan:
        """The plan for the same card should vLLM turn out not to load there."""
        asked = self.asked
        return make_plan(
            dataclasses.replace(asked.settings, vllm="off"), asked.machine, asked.shape, asked.longest_prompt
        )

    @property
    def unpacks_base(self) -> bool:
        """Is a base in 4 bits held unpacked? A processor that computes in bfloat16 is faster so."""
        return not self.choice.card and unpacks(self.settings)

    @property
    def peak_gib(self) -> float:
        """The most memory that the run takes at any time, in GiB."""
        return peak_bytes(self.parts) / GIB if self.parts else 0.0


class _LaidOut(NamedTuple):
    """A plan but for what it was made from."""

    settings: Settings
    choice: EngineChoice
    layout: Layout
    parts: list[Part]
    memory_share: float
    reasons: list[str]


def make_plan(
    settings: Settings, machine: Machine, shape: ModelShape | None, longest_prompt: int | None = None
) -> Plan:
    """The plan for this machine.

    Args:
        settings: what the user set (``settings.given``), and defaults.
        machine: the card and its free memory.
        shape: of the model; ``None`` where it is not known: then nothing is said about memory.
        longest_prompt: in tokens, where it is known; a processor's memory is reckoned with it.

    Raises:
        UserError: it cannot fit, with the setting that would make it fit; or vLLM is required and cannot be had.
    """
    choice = choose_engine(machine, settings.vllm, shape.head if shape else None)
    if not machine.has_cuda:
        settings = dataclasses.replace(settings, cpu_dtype=_cpu_dtype(settings, machine, shape))
    if not machine.has_cuda and "optim" not in settings.given:
        settings = dataclasses.replace(settings, optim="adamw_torch_fused")
    asked = Asked(settings, machine, shape, longest_prompt)
    if shape is None:
        filled = dataclasses.replace(settings, **ways_to_make_up_a_step(settings, ENOUGH_TOKENS)[0])
        return Plan(filled, choice, None, [], settings.gpu_memory_utilization, [choice.reason], asked)
    reckoned = settings
    if longest_prompt is not None and not machine.has_cuda:  # a card's plan holds for questions that are yet to come
        length = min(longest_prompt, settings.max_prompt_length)
        reckoned = dataclasses.replace(settings, max_prompt_length=length)
    laid_out = _largest_that_fits(reckoned, machine, shape, choice)
    if laid_out is None:
        raise UserError(_refusal(reckoned, machine, shape, choice))
    filled = dataclasses.replace(laid_out.settings, max_prompt_length=settings.max_prompt_length)
    return Plan(**laid_out._replace(settings=filled)._asdict(), asked=asked)


def _cpu_dtype(settings: Settings, machine: Machine, shape: ModelShape | None) -> str:
    """What the user set, or a continued run began with; else bfloat16 for models and machines that gain by it."""
    if settings.cpu_dtype != "auto":
        return settings.cpu_dtype
    gains = shape is not None and shape.hidden >= _LARGE_HIDDEN and machine.bfloat16_gain >= _CLEAR_GAIN
    return "bfloat16" if gains else "float32"


def _largest_that_fits(
    settings: Settings, machine: Machine, shape: ModelShape, choice: EngineChoice
) -> _LaidOut | None:
    lay_out = _laid_out if machine.has_cuda else _laid_out_on_processor
    for changes, layout in _ways(settings, machine, choice):
        laid_out = lay_out(dataclasses.replace(settings, **changes), machine, shape, choice, layout)
        if laid_out is not None:
            return laid_out
    return None


def _ways(settings: Settings, machine: Machine, choice: EngineChoice) -> Iterator[tuple[dict[str, Any], Layout]]:
    layouts = _layouts if machine.has_cuda else _processor_layouts
    return layouts(settings, choice.use_vllm)


def _processor_layouts(settings: Settings, use_vllm: bool) -> Iterator[tuple[dict[str, Any], Layout]]:
    """(settings to change, layout) from the largest to the smallest."""
    batches = ways_to_make_up_a_step(settings, _ENOUGH_ON_A_PROCESSOR)
    lengths = (settings.max_completion_length, *(() if "max_completion_length" in settings.given else _SHORTER))
    engines = (True, False) if use_vllm and settings.vllm == "auto" else (use_vllm,)
    for length, vllm, checkpointing, batch in itertools.product(lengths, engines, (False, True), batches):
        rows, accumulation = batch["per_device_train_batch_size"], batch["gradient_accumulation_steps"]
        changes = batch if length == settings.max_completion_length else batch | {"max_completion_length": length}
        yield changes, Layout(vllm, False, rows, rows * accumulation, length, checkpointing=checkpointing)


def _laid_out_on_processor(
    settings: Settings, machine: Machine, shape: ModelShape, choice: EngineChoice, layout: Layout
) -> _LaidOut | None:
    """The plan with this layout; ``None`` where it does not fit."""
    parts = processor_parts(shape, settings, layout)
    if peak_bytes(parts) > _USABLE * machine.free_gib * GIB:
        return None
    choice = dataclasses.replace(choice, gradient_checkpointing=layout.checkpointing)
    if layout.vllm != choice.use_vllm:
        choice = dataclasses.replace(choice, use_vllm=False, reason=does_not_fit(None))
    again = "; activations are computed again in the backward pass, to save memory" if layout.checkpointing else ""
    slower = machine.slower_in_bfloat16
    how = f"which is {slower} times slower here: leave --cpu-dtype out" if slower else "which is faster here"
    computed = f", passes in bfloat16, {how}" if settings.cpu_dtype == "bfloat16" else ""
    reasons = [f"number type {choice.dtype}{computed}", choice.reason, _about_batches(settings) + again]
    reasons += _about_length(settings, layout)
    return _LaidOut(settings, choice, layout, parts, settings.gpu_memory_utilization, reasons)


def _laid_out(
    settings: Settings, machine: Machine, shape: ModelShape, choice: EngineChoice, layout: Layout
) -> _LaidOut | None:
    """The plan with this layout; ``None`` where it does not fit."""
    free = machine.free_gib * GIB
    usable = _USABLE * free
    layout = dataclasses.replace(layout, graphs_in_share=_counts_graphs(machine))
    needed = memory_parts(shape, settings, layout)
    if layout.vllm:
        if "gpu_memory_utilization" in settings.given:
            reserve = settings.gpu_memory_utilization * free - vllm_bytes(needed)
        else:
            reserve = min(_MOST_RESERVE_GIB * GIB, (usable - peak_bytes(needed)) / 2)
        if reserve < 0:
            return None
        layout = dataclasses.replace(layout, reserve=reserve)
        needed = memory_parts(shape, settings, layout)
    share = vllm_bytes(needed) / free
    if peak_bytes(needed) > usable or share > _MOST_SHARE:
        return None
    parts, pieces = taken_parts(shape, settings, layout, free, usable)
    layout = dataclasses.replace(layout, scoring_pieces=pieces)
    if layout.vllm != choice.use_vllm:
        wish = settings.gpu_memory_utilization if "gpu_memory_utilization" in settings.given else None
        choice = dataclasses.replace(choice, use_vllm=False, reason=does_not_fit(wish))
    filled = dataclasses.replace(settings, gpu_memory_utilization=round(share, 3)) if layout.vllm else settings
    return _LaidOut(filled, choice, layout, parts, round(share, 3), _reasons(filled, machine, choice, layout))


def _counts_graphs(machine: Machine) -> bool:
    """Does the vLLM of the packages for this card count its CUDA graphs in its share? That of requirements.txt does
    not."""
    try:
        return requirements_for(machine) != "requirements.txt"
    except UserError:  # there are none for it
        return True


def _layouts(settings: Settings, use_vllm: bool) -> Iterator[tuple[dict[str, Any], Layout]]:
    """(settings to change, layout) from the largest to the smallest."""
    batches = ways_to_make_up_a_step(settings, ENOUGH_TOKENS)
    whole_step = batches[0]["per_device_train_batch_size"] * batches[0]["gradient_accumulation_steps"]
    full = settings.max_completion_length
    for vllm in (True, False) if use_vllm and settings.vllm == "auto" else (use_vllm,):
        # smaller than the smallest with vLLM, so it begins there; unless it was the user's share that was too small
        spilled = use_vllm and not vllm and "gpu_memory_utilization" not in settings.given
        for batch in batches[-1:] if spilled else batches:
            yield from _variants(batch, vllm, whole_step, full)
        sequences = whole_step // 2
        while vllm and sequences >= _FEWEST_SEQUENCES:
            yield from _variants(batches[-1], vllm, sequences, full)
            sequences //= 2
    if "max_completion_length" not in settings.given:
        for length in _SHORTER:
            shorter = batches[-1] | {"max_completion_length": length}
            yield from _variants(shorter, use_vllm and settings.vllm == "require", whole_step, length)


def _variants(changes: dict[str, Any], vllm: bool, sequences: int, length: int) -> Iterator[tuple[dict, Layout]]:
    """The same size in less and less memory: with a cache that stays, then with one that is given back."""
    rows = changes["per_device_train_batch_size"]
    for standby in (False, True) if vllm else (False,):
        yield changes, Layout(vllm, standby, rows, sequences, length)


def _reasons(settings: Settings, machine: Machine, choice: EngineChoice, layout: Layout) -> list[str]:
    """What was chosen, each with its reason."""
    capability = ".".join(map(str, machine.capability))
    why = "compute capability 8.0 and newer have it" if choice.dtype == "bfloat16" else "no bfloat16 before 8.0"
    lines = [f"number type {choice.dtype}: {machine.card} has compute capability {capability}, {why}", choice.reason]
    if layout.vllm:
        lines.append(
            f"--gpu-memory-utilization {settings.gpu_memory_utilization:g} of the free memory: "
            f"{layout.sequences} completions at a time"
        )
        if layout.standby:
            lines.append("standby: vLLM gives its cache back during the update, so that both fit")
    lines += [_about_batches(settings), *_about_length(settings, layout)]
    lines.append(f"optimizer {settings.optim}; activations are computed again in the backward pass")
    return lines


def _about_batches(settings: Settings) -> str:
    rows, accumulation = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    cards = f" x {settings.gpus} cards" if settings.gpus > 1 else ""
    return (
        f"--batch-size {rows} x --gradient-accumulation-steps {accumulation}{cards} = {settings.completions_per_step} "
        f"completions a step in groups of {settings.num_generations}: as large a pass as fits and helps"
    )


def _about_length(settings: Settings, layout: Layout) -> list[str]:
    if layout.completion >= Settings().max_completion_length or "max_completion_length" in settings.given:
        return []
    return [f"--max-completion-length {layout.completion}: longer ones do not fit"]


def _refusal(settings: Settings, machine: Machine, shape: ModelShape, choice: EngineChoice) -> str:
    """What cannot fit, by how much, and the setting that would make it fit."""
    *_, (changes, smallest) = _ways(settings, machine, choice)
    reckon = memory_parts if machine.has_cuda else processor_parts
    parts = reckon(shape, dataclasses.replace(settings, **changes), smallest)
    need = max(peak_bytes(parts), vllm_bytes(parts)) / GIB / _USABLE
    said = (
        f"{settings.model} does not fit {machine.name} with these settings: at least {need:.1f} GiB are needed, "
        f"{machine.free_gib:.1f} free"
    )
    for words, changed in _other_settings(settings):
        if _largest_that_fits(changed, machine, shape, choose_engine(machine, changed.vllm, shape.head)):
            return f"{said}: it fits {words}"
    smaller = f"name a smaller --model{' (the default is unsloth/Qwen2.5-0.5B-Instruct)' if machine.has_cuda else ''}"
    return f"{said}: {smaller}, or use a {'larger card' if machine.has_cuda else 'machine with more memory'}"


def _other_settings(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """What a user may change so that less is needed, the least felt first: in words, and the settings then."""

    def with_(option: str, **changes: Any) -> Iterator[tuple[str, Settings]]:
        changed = dataclasses.replace(settings, given=settings.given | frozenset(changes), **changes)
        if changed != settings:
            yield f"with {option}", changed

    def without(options: str, *names: str) -> Iterator[tuple[str, Settings]]:
        if settings.given & set(names):
            left = {name: getattr(Settings(), name) for name in names}
            yield f"without {options}", dataclasses.replace(settings, given=settings.given - set(names), **left)

    yield from with_("--load-in-4bit", load_in_4bit=True)
    yield from without("--gpu-memory-utilization", "gpu_memory_utilization")
    yield from without(
        "--batch-size and --gradient-accumulation-steps", "per_device_train_batch_size", "gradient_accumulation_steps"
    )
    yield from with_("--vllm off", vllm="off")
    for length in (512, 384, 256):
        yield from with_(f"--max-completion-length {length}", max_completion_length=length)
    for length in (512, 256):
        yield from with_(f"--max-prompt-length {length}", max_prompt_length=length)
