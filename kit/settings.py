"""Every knob of the training, once: name, default, reason. The command line, ``--config`` files and run.yaml all read
from this one list, and the cross-checks that need no model stand below it.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kit.errors import UserError


def knob(default: Any, reason: str, group: str, **options: Any) -> Any:
    """A dataclass field that is also a command line option; ``reason`` is its help text."""
    return dataclasses.field(default=default, metadata={"reason": reason, "group": group, **options})


@dataclass
class Settings:
    """What a training run can be told. Lengths are in tokens, batch sizes in completions."""

    model: str = knob("unsloth/Qwen2.5-0.5B-Instruct", "Hub id or folder of the base model", "model")
    load_in_4bit: bool = knob(True, "hold the frozen base weights in 4 bits", "model")
    vllm: str = knob(
        "auto", "rollouts through vLLM: auto, off, or require", "model", choices=("auto", "off", "require")
    )
    gpu_memory_utilization: float = knob(0.5, "the share of the card's memory that vLLM may take", "model")

    dataset: str = knob("openai/gsm8k", "Hub id or JSONL file of the questions", "data")
    split: str = knob("train", "which split of a Hub data set", "data")
    question_column: str = knob("question", "the column that holds the question", "data")
    answer_column: str = knob("answer", "the column that holds the answer (a number, or GSM8K's '... #### N')", "data")

    lora_rank: int = knob(32, "rank of the adapter; 32 matched full training of 0.5B in verl's runs", "adapter")
    lora_alpha: int = knob(32, "scale of the adapter; equal to the rank, the update is used as it is", "adapter")

    max_steps: int = knob(250, "optimizer steps", "training")
    learning_rate: float = knob(3e-5, "peak rate; the one of verl's LoRA recipe for 0.5B", "training")
    num_generations: int = knob(8, "completions for each question (the group size)", "training")
    per_device_train_batch_size: int = knob(8, "completions in one forward pass", "training", alias="--batch-size")
    gradient_accumulation_steps: int = knob(4, "forward passes for each optimizer step", "training")
    max_prompt_length: int = knob(512, "longer prompts are left out, with a sentence", "training")
    max_completion_length: int = knob(512, "where a completion is cut off", "training")
    temperature: float = knob(1.0, "of the rollouts; 1.0 samples from the policy itself", "training")
    beta: float = knob(0.0, "weight of the KL term; 0 needs no reference model", "training")
    warmup_steps: int = knob(10, "steps until the peak learning rate", "training")
    lr_scheduler_type: str = knob("constant_with_warmup", "shape of the learning rate", "training")
    max_grad_norm: float = knob(0.2, "gradients are clipped to this norm", "training")
    optim: str = knob("adamw_8bit", "optimizer; the 8-bit one saves memory (on a CPU: fused AdamW)", "training")
    seed: int = knob(1, "of the adapter, the data order and the sampling", "training")

    rewards: str = knob(
        "correctness,integer,strict_format,soft_format,xml_count",
        "reward functions of rewards.py, each with an optional weight, as in correctness:2,soft_format:0.5",
        "rewards",
    )

    output_dir: str = knob("runs/qwen2.5-0.5b-gsm8k", "the run folder; everything the run makes goes there", "output")
    overwrite: bool = knob(False, "start anew in a run folder that is occupied", "output")
    sample_every: int = knob(1, "steps between two entries of samples.jsonl", "output")

    @property
    def completions_per_step(self) -> int:
        """How many completions one optimizer step learns from."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
_TYPES = {"int": int, "float": float, "str": str}


def read_settings(argv: Sequence[str] | None, description: str) -> Settings:
    """Command line over ``--config`` file over defaults.

    Raises:
        UserError: with every problem of the command line and the file at once.
    """
    arguments = vars(_parser(description).parse_args(argv))
    config = arguments.pop("config", None)
    settings = Settings(**{**(_read_config(Path(config)) if config else {}), **arguments})
    if problems := find_problems(settings):
        raise UserError(*problems)
    return settings


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="settings from a file, such as another run's run.yaml")
    titles = dict.fromkeys(field.metadata["group"] for field in FIELDS.values())
    groups = {title: parser.add_argument_group(title) for title in titles}
    for name, field in FIELDS.items():
        knob_info = field.metadata
        options: dict[str, Any] = {"help": f"{knob_info['reason']} (default: {field.default})".replace("%", "%%")}
        if field.type == "bool":
            options["action"] = argparse.BooleanOptionalAction
        elif "choices" in knob_info:
            options["choices"] = knob_info["choices"]
        else:
            options |= {"type": _TYPES[str(field.type)], "metavar": str(field.type).upper()}
        flags = ["--" + name.replace("_", "-"), *([knob_info["alias"]] if "alias" in knob_info else [])]
        groups[knob_info["group"]].add_argument(*flags, **options)
    return parser


def _read_config(path: Path) -> dict[str, Any]:
    """The knobs in a YAML file; a run.yaml is one, its knobs stand under ``settings``."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UserError(f"--config {path} cannot be read ({error.strerror}): give an existing YAML file") from None
    except yaml.YAMLError as error:
        raise UserError(f"--config {path} does not parse: {' '.join(str(error).split())}") from None
    knobs: dict[str, Any] = content.get("settings") or content
    if unknown := [name for name in knobs if name not in FIELDS]:
        raise UserError(*(f"--config {path}: there is no setting {name!r}; --help lists them" for name in unknown))
    return {name: _TYPES.get(str(FIELDS[name].type), bool)(value) for name, value in knobs.items()}


def find_problems(settings: Settings) -> list[str]:
    """Everything that is wrong with the settings, each as a sentence with its remedy; needs no model and no data."""
    problems = []
    positive = ("lora_rank", "lora_alpha", "max_steps", "learning_rate", "per_device_train_batch_size",
                "gradient_accumulation_steps", "max_prompt_length", "max_completion_length", "temperature",
                "max_grad_norm", "sample_every")  # fmt: skip
    for name in positive:
        if not getattr(settings, name) > 0:
            problems.append(f"--{name.replace('_', '-')} is {getattr(settings, name)}: it must be greater than 0")
    if settings.num_generations < 2:
        problems.append(
            f"--num-generations is {settings.num_generations}: GRPO compares the completions of a group, give 2 or more"
        )
    elif settings.completions_per_step % settings.num_generations:
        fitting = max(1, round(settings.completions_per_step / settings.num_generations)) * settings.num_generations
        problems.append(
            f"--batch-size {settings.per_device_train_batch_size} times --gradient-accumulation-steps "
            f"{settings.gradient_accumulation_steps} is {settings.completions_per_step} completions a step, which "
            f"groups of --num-generations {settings.num_generations} do not divide: make the product {fitting}"
        )
    if not 0 < settings.gpu_memory_utilization < 1:
        problems.append(f"--gpu-memory-utilization is {settings.gpu_memory_utilization}: give a share between 0 and 1")
    return problems
