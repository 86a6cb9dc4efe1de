"""One training run of a few steps, timed. Prints one line of JSON.

    python -m benchmarks.step_worker kit BASE DATA --steps 6        the kit, with all that it writes down
    python -m benchmarks.step_worker bare BASE DATA --steps 6       Unsloth and TRL's trainer, nothing written down
    python -m benchmarks.step_worker trl BASE DATA --steps 6        transformers, PEFT and TRL; needs a card (Triton)

Started by ``benchmarks.step`` (processors) and ``benchmarks.gpu`` (cards), a process for each run, so that no variant
inherits another's patches or memory. Every completion is written to its full length, so that all have the same work.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.stopwatch import WARM_UP_STEPS, Stopwatch
from benchmarks.worker_runs import MARK
from kit.checkpointing.saving import checkpointing
from kit.cli.signals import StopRequest
from kit.generation.vllm_engine import vllm_environment
from kit.models import loading as model
from kit.planning import hardware
from kit.planning.card_memory import GIB, memory_parts, vllm_bytes
from kit.planning.memory_now import own_bytes_on_cards
from kit.planning.model_shape import known_shape
from kit.planning.plan import Plan, make_plan
from kit.prompts import build_prompt
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder
from kit.task.questions import load_questions
from kit.task.reward_columns import with_columns
from kit.task.user_rewards import maxima
from kit.training.preflight import rehearse
from kit.training.run_log import RunLog
from kit.training.trainer import as_dataset, build_trainer, trainer_arguments
from rewards import choose_rewards


def main() -> None:
    args = read_arguments()
    memory = PeakMemory()
    settings, plan = planned(args)
    timing = Stopwatch()
    build = {"kit": build_kit, "bare": build_bare, "trl": build_trl}[args.variant]
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(args, settings, plan, RunFolder(Path(folder)), timing)
        timing.watch(trainer)
        trainer.train()
        print(MARK + json.dumps(timing.figures() | memory.figures() | described(plan, args)), flush=True)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=["kit", "bare", "trl"])
    parser.add_argument("base")
    parser.add_argument("data")
    parser.add_argument("--steps", type=int, default=6, help=f"the first {WARM_UP_STEPS} are not counted")
    parser.add_argument("--completion", type=int, default=40, help="tokens of every completion")
    parser.add_argument("--batch-size", type=int, help="completions in one pass (default: the plan's)")
    parser.add_argument("--accumulation", type=int, help="passes a step (default: the plan's)")
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--save-steps", type=int, default=Settings().save_steps, help="steps between checkpoints")
    parser.add_argument("--vllm", default="auto", choices=["auto", "off", "require"])
    parser.add_argument("--cap-gib", type=float, help="let this process take no more of the card's memory")
    return parser.parse_args()


def planned(args: argparse.Namespace) -> tuple[Settings, Plan]:
    """The settings, and the plan for the card as far as it is allowed."""
    sizes = {"per_device_train_batch_size": args.batch_size, "gradient_accumulation_steps": args.accumulation}
    chosen = {name: value for name, value in sizes.items() if value}
    settings = Settings(
        model=args.base, dataset=args.data, vllm=args.vllm, max_steps=args.steps, num_generations=args.generations,
        max_completion_length=args.completion, learning_rate=1e-4, save_steps=args.save_steps, **chosen,
    )  # fmt: skip
    settings.given = frozenset({"max_completion_length", *chosen})
    settings.further = {"generation_kwargs": {"min_new_tokens": args.completion}}
    machine = hardware.detect()
    really_free = machine.free_gib
    if machine.has_cuda and args.cap_gib:
        import torch

        torch.cuda.set_per_process_memory_fraction(args.cap_gib / machine.memory_gib)
        machine = replace(machine, free_gib=min(args.cap_gib, really_free), memory_gib=args.cap_gib)
    plan = make_plan(settings, machine, known_shape(args.base) if machine.has_cuda else None)
    if machine.has_cuda:  # vLLM reckons its share of all that is free, the plan of what it is allowed
        plan = replace(plan, memory_share=plan.memory_share * machine.free_gib / really_free)
        if plan.choice.use_vllm:
            plan.settings.further = {"generation_kwargs": {"min_tokens": args.completion}}
    return plan.settings, plan


def build_kit(_: Any, settings: Settings, plan: Plan, run: RunFolder, timing: Stopwatch) -> Any:
    """The trainer as ``train_lora.py`` builds it, with all that it writes down."""
    run.checkpoints.mkdir()
    policy, tokenizer, plan = model.load_for_training(plan)
    functions, weights = choose_rewards(settings.rewards)
    log = RunLog(run, settings, maxima=maxima(functions))
    keeper = checkpointing(run, settings, StopRequest(), None, None)
    questions = load_questions(settings.dataset, "train", "question", "answer")
    dataset = as_dataset(questions, tokenizer, settings)
    rewards = [*(with_columns(log.recording(function), questions) for function in functions), timing.count_tokens]
    arguments = trainer_arguments(settings, plan.choice, [*weights, 0.0], run, plan.layout)
    if plan.choice.card:
        rehearse(arguments, policy, tokenizer, dataset)
    trainer = build_trainer(
        arguments, policy, tokenizer, dataset, rewards, [log.callback(), keeper, timing.callback(settings.max_steps)]
    )
    keeper.trainer = trainer
    return trainer


def build_bare(_: Any, settings: Settings, plan: Plan, run: RunFolder, timing: Stopwatch) -> Any:
    """The same model and trainer, and nothing of the kit's around them."""
    policy, tokenizer, plan = model.load_for_training(plan)
    if not plan.choice.card:
        policy.generate = policy.generate.__wrapped__  # sampling as torch does it
    functions, weights = choose_rewards(settings.rewards)
    questions = load_questions(settings.dataset, "train", "question", "answer")
    dataset = as_dataset(questions, tokenizer, settings)
    arguments = trainer_arguments(settings, plan.choice, [*weights, 0.0], run, plan.layout)
    rewards = [*(with_columns(function, questions) for function in functions), timing.count_tokens]
    return build_trainer(arguments, policy, tokenizer, dataset, rewards, [timing.callback(settings.max_steps)])


def build_trl(args: argparse.Namespace, settings: Settings, plan: Plan, run: RunFolder, timing: Stopwatch) -> Any:
    """What somebody without the kit would write: transformers, bitsandbytes, PEFT and TRL, and nothing written down.

    With vLLM the base is held in 16 bits: TRL's colocated vLLM does not take an adapter on a 4-bit base.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import GRPOConfig, GRPOTrainer

    dtype = getattr(torch, plan.choice.dtype)
    use_vllm, machine = plan.choice.use_vllm, hardware.detect()
    share = share_with_16_bit_weights(args, settings, plan, machine) if use_vllm else 0.0
    for name, value in vllm_environment(machine).items():
        os.environ.setdefault(name, value)
    in_4bit = {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    }
    device = {"device_map": {"": 0}} if plan.choice.card else {}
    base = AutoModelForCausalLM.from_pretrained(args.base, dtype=dtype, **device, **({} if use_vllm else in_4bit))
    functions, weights = choose_rewards(settings.rewards)
    arguments = trainer_arguments(settings, plan.choice, [*weights, 0.0], run)
    if use_vllm:
        arguments |= {
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": share,
            "vllm_max_model_length": settings.max_prompt_length + settings.max_completion_length,
        }
    rows = load_questions(settings.dataset, "train", "question", "answer")
    return GRPOTrainer(
        model=base,
        processing_class=AutoTokenizer.from_pretrained(args.base),
        reward_funcs=[*functions, timing.count_tokens],
        args=GRPOConfig(**arguments),
        train_dataset=Dataset.from_list([{"prompt": build_prompt(r["question"]), "answer": r["answer"]} for r in rows]),
        peft_config=LoraConfig(
            r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=list(model.LORA_TARGETS)
        ),
        callbacks=[timing.callback(settings.max_steps)],
    )


def share_with_16_bit_weights(
    args: argparse.Namespace, settings: Settings, plan: Plan, machine: hardware.Machine
) -> float:
    """The plan's share, and as much more as vLLM's own 16-bit weights take: its cache is to be as large."""
    shape = known_shape(args.base)
    assert shape is not None
    assert plan.layout is not None
    in_16_bits, in_4_bits = (
        vllm_bytes(memory_parts(shape, replace(settings, load_in_4bit=in_4bit), plan.layout))
        for in_4bit in (False, True)
    )
    of_all = plan.memory_share * machine.free_gib / machine.memory_gib  # Unsloth is told a share of what is free
    return of_all + (in_16_bits - in_4_bits) / GIB / machine.memory_gib


class PeakMemory:
    """The most memory of the card that this process took, as the driver (NVML) sees it.

    In a container the driver may know processes by other numbers: then it is what all of them took, less what was taken
    before.
    """

    def __init__(self) -> None:
        self.peak = self.own_peak = 0
        try:
            import pynvml

            pynvml.nvmlInit()
            card = pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception:  # no driver, no card, no library: no figures
            self.before = None
            return
        self.before = pynvml.nvmlDeviceGetMemoryInfo(card).used

        def watch() -> None:
            while True:
                self.peak = max(self.peak, pynvml.nvmlDeviceGetMemoryInfo(card).used)
                self.own_peak = max(self.own_peak, own_bytes_on_cards())
                time.sleep(0.05)

        threading.Thread(target=watch, daemon=True).start()

    def figures(self) -> dict[str, Any]:
        """Peak in GiB; nothing where there is no card."""
        return {} if self.before is None else {"peak_gib": (self.own_peak or self.peak - self.before) / GIB}


def described(plan: Plan, args: argparse.Namespace) -> dict[str, Any]:
    """What the figures are of."""
    settings = plan.settings
    return {
        "variant": args.variant,
        "vllm": plan.choice.use_vllm,
        "completions_a_step": settings.completions_per_step,
        "layout": asdict(plan.layout) if plan.layout else None,
        "planned_peak_gib": plan.peak_gib or None,
    }


if __name__ == "__main__":
    main()
