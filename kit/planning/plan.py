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
from typing import Any

from kit.cli.errors import UserError
from kit.planning.card_memory import GIB, Layout, Part, memory_parts, peak_bytes, taken_parts, vllm_bytes
from kit.planning.engine_choice import EngineChoice, choose_engine, does_not_fit
from kit.planning.hardware import Machine
from kit.planning.model_shape import ModelShape
from kit.planning.processor_memory import processor_parts, unpacks
from kit.settings.knobs import Settings

_USABLE = 0.95  # of the free memory: what other programs take in the meantime comes out of the rest
_FEWEST_SEQUENCES = 4
_ENOUGH_TOKENS = 8192  # in one pass: from a few hundred on, cards are limited by arithmetic and more does not go faster
_ENOUGH_ON_A_PROCESSOR = 2048  # and processors before that
_MOST_RESERVE_GIB = 1.0  # beyond the estimate of what vLLM needs, where there is room: it becomes cache
_LARGE_HIDDEN, _CLEAR_GAIN = 512, 1.5  # from which size of a model, and gain of a product on, a pass gains too
_SHORTER = (384, 256)  # lengths that are tried where the default cannot be had
_MOST_SHARE = 0.95


@dataclass(frozen=True)
class Plan:
    """Settings with the open ones filled in, and how the run is laid out in memory.

    ``layout`` and ``parts`` are there where the model's shape is known; ``memory_share`` is what vLLM may take of the
    card's free memory.
    ``reasons`` says in sentences what was chosen and why; ``made_from`` is what ``make_plan`` was told.
    """

    settings: Settings
    choice: EngineChoice
    layout: Layout | None
    parts: list[Part]
    memory_share: float
    reasons: list[str]
    made_from: tuple[Settings, Machine, ModelShape | None, int | None]

    def without_vllm(self) -> Plan:
        """The plan for the same card should vLLM turn out not to load there."""
        settings, machine, shape, longest_prompt = self.made_from
        return make_plan(dataclasses.replace(settings, vllm="off"), machine, shape, longest_prompt)

    @property
    def unpacks_base(self) -> bool:
        """Is a base in 4 bits held unpacked? A processor that computes in bfloat16 is faster so."""
        return not self.choice.card and unpacks(self.settings)

    @property
    def peak_gib(self) -> float:
        """The most memory that the run takes at any time, in GiB."""
        return peak_bytes(self.parts) / GIB if self.parts else 0.0


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
    if shape is None:
        filled = dataclasses.replace(settings, **_batches(settings, _ENOUGH_TOKENS)[0])
        made_from = (settings, machine, shape, longest_prompt)
        return Plan(filled, choice, None, [], settings.gpu_memory_utilization, [choice.reason], made_from)
    reckoned = settings
    if longest_prompt is not None and not machine.has_cuda:  # a card's plan holds for questions that are yet to come
        length = min(longest_prompt, settings.max_prompt_length)
        reckoned = dataclasses.replace(settings, max_prompt_length=length)
    plan = _largest_that_fits(reckoned, machine, shape, choice)
    if plan is None:
        raise UserError(_refusal(reckoned, machine, shape, choice))
    filled = dataclasses.replace(plan.settings, max_prompt_length=settings.max_prompt_length)
    return dataclasses.replace(plan, settings=filled, made_from=(settings, machine, shape, longest_prompt))


def _cpu_dtype(settings: Settings, machine: Machine, shape: ModelShape | None) -> str:
    """What the user set, or a continued run began with; else bfloat16 for models and machines that gain by it."""
    if settings.cpu_dtype != "auto":
        return settings.cpu_dtype
    gains = shape is not None and shape.hidden >= _LARGE_HIDDEN and machine.bfloat16_gain >= _CLEAR_GAIN
    return "bfloat16" if gains else "float32"


def _largest_that_fits(settings: Settings, machine: Machine, shape: ModelShape, choice: EngineChoice) -> Plan | None:
    laid_out = _laid_out if machine.has_cuda else _laid_out_on_processor
    for changes, layout in _ways(settings, machine, choice):
        plan = laid_out(dataclasses.replace(settings, **changes), machine, shape, choice, layout)
        if plan is not None:
            return plan
    return None


def _ways(settings: Settings, machine: Machine, choice: EngineChoice) -> Iterator[tuple[dict[str, Any], Layout]]:
    layouts = _layouts if machine.has_cuda else _processor_layouts
    return layouts(settings, choice.use_vllm)


def _processor_layouts(settings: Settings, use_vllm: bool) -> Iterator[tuple[dict[str, Any], Layout]]:
    """(settings to change, layout) from the largest to the smallest."""
    batches = _batches(settings, _ENOUGH_ON_A_PROCESSOR)
    lengths = (settings.max_completion_length, *(() if "max_completion_length" in settings.given else _SHORTER))
    engines = (True, False) if use_vllm and settings.vllm == "auto" else (use_vllm,)
    for length, vllm, checkpointing, batch in itertools.product(lengths, engines, (False, True), batches):
        rows, accumulation = batch["per_device_train_batch_size"], batch["gradient_accumulation_steps"]
        changes = batch if length == settings.max_completion_length else batch | {"max_completion_length": length}
        yield changes, Layout(vllm, False, rows, rows * accumulation, length, checkpointing=checkpointing)


def _laid_out_on_processor(
    settings: Settings, machine: Machine, shape: ModelShape, choice: EngineChoice, layout: Layout
) -> Plan | None:
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
    made_from = (settings, machine, shape, None)
    return Plan(settings, choice, layout, parts, settings.gpu_memory_utilization, reasons, made_from)


def _laid_out(
    settings: Settings, machine: Machine, shape: ModelShape, choice: EngineChoice, layout: Layout
) -> Plan | None:
    """The plan with this layout; ``None`` where it does not fit."""
    free = machine.free_gib * GIB
    usable = _USABLE * free
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
    parts = taken_parts(shape, settings, layout, usable)
    if layout.vllm != choice.use_vllm:
        wish = settings.gpu_memory_utilization if "gpu_memory_utilization" in settings.given else None
        choice = dataclasses.replace(choice, use_vllm=False, reason=does_not_fit(wish))
    filled = dataclasses.replace(settings, gpu_memory_utilization=round(share, 3)) if layout.vllm else settings
    reasons, made_from = _reasons(filled, machine, choice, layout), (settings, machine, shape, None)
    return Plan(filled, choice, layout, parts, round(share, 3), reasons, made_from)


def _layouts(settings: Settings, use_vllm: bool) -> Iterator[tuple[dict[str, Any], Layout]]:
    """(settings to change, layout) from the largest to the smallest."""
    batches = _batches(settings, _ENOUGH_TOKENS)
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


def _batches(settings: Settings, enough_tokens: int) -> list[dict[str, Any]]:
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
    opened = (
        (("--gpu-memory-utilization",), ("gpu_memory_utilization",)),
        (
            ("--batch-size", "--gradient-accumulation-steps"),
            ("per_device_train_batch_size", "gradient_accumulation_steps"),
        ),
    )
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("--load-in-4bit", {"load_in_4bit": True}),
        *(
            (f"without {' and '.join(options)}", {name: getattr(Settings(), name) for name in names})
            for options, names in opened
        ),
        ("--vllm off", {"vllm": "off"}),
        *((f"--max-completion-length {n}", {"max_completion_length": n}) for n in (512, 384, 256)),
        *((f"--max-prompt-length {n}", {"max_prompt_length": n}) for n in (512, 256)),
    ]
    for words, changes in attempts:
        left_out = set(changes) if words.startswith("without") else set()
        if left_out and not left_out & settings.given:
            continue
        given = (settings.given | set(changes)) - left_out
        changed = dataclasses.replace(settings, given=frozenset(given), **changes)
        if changed == settings and not left_out:
            continue
        if _largest_that_fits(changed, machine, shape, choose_engine(machine, changed.vllm, shape.head)):
            return f"{said}: it fits {words if left_out else 'with ' + words}"
    smaller = f"name a smaller --model{' (the default is unsloth/Qwen2.5-0.5B-Instruct)' if machine.has_cuda else ''}"
    return f"{said}: {smaller}, or use a {'larger card' if machine.has_cuda else 'machine with more memory'}"
