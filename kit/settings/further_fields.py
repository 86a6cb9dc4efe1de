"""What a ``--config`` file may say beside the kit's knobs: further fields of TRL's GRPOConfig, in their types, and the
names that the recipes of TRL and open-r1 have for our knobs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from kit.cli.command_line import nearest
from kit.cli.errors import UserError
from kit.settings.trainer_fields import trainer_fields

# Names of TRL's and open-r1's recipes that mean one of our knobs.
ALIASES = {
    "model_name_or_path": "model",
    "dataset_name": "dataset",
    "dataset_config_name": "dataset_config",
    "dataset_train_split": "split",
    "dataset_prompt_column": "question_column",
    "dataset_solution_column": "answer_column",
    "reward_funcs": "rewards",
    "lora_r": "lora_rank",
    "loss_type": "loss",
}

_CARD = "it follows from the card"
_WHOLE_MODEL = "each card holds the whole model: accelerate launch --multi_gpu train_lora.py, see docs/more-cards.md"
_HELD_OUT = "held-out questions are asked by --eval-every and --eval-questions, and --keep best keeps the best step"
_ITS_VLLM = "the kit starts vLLM in its own process and gives it what fits: use --vllm and --gpu-memory-utilization"
_ITS_LORA = "the adapter stands on all projections, without dropout: use --lora-rank and --lora-alpha"
_HUB = "use merge_and_export.py --push-to-hub"

# Fields that follow from a knob of ours, that nothing here could serve, or that would take the run out of our hands.
_NOT_FROM_A_FILE = {
    "reward_weights": "give weights with --rewards NAME:WEIGHT",
    "bf16": _CARD,
    "fp16": _CARD,
    "torch_dtype": _CARD,
    "dtype": _CARD,
    "attn_implementation": _CARD,
    "gradient_checkpointing": _CARD,
    "auto_find_batch_size": "the plan finds it; --plan shows it",
    "use_vllm": "use --vllm",
    "vllm_mode": _ITS_VLLM,
    "vllm_gpu_memory_utilization": _ITS_VLLM,
    "vllm_tensor_parallel_size": _WHOLE_MODEL,
    "vllm_server_host": _ITS_VLLM,
    "vllm_server_port": _ITS_VLLM,
    "vllm_server_base_url": _ITS_VLLM,
    "deepspeed": _WHOLE_MODEL,
    "fsdp": _WHOLE_MODEL,
    "fsdp_config": _WHOLE_MODEL,
    "parallelism_config": _WHOLE_MODEL,
    "use_peft": "the kit always trains a LoRA adapter",
    "lora_target_modules": _ITS_LORA,
    "lora_dropout": _ITS_LORA,
    "lora_task_type": _ITS_LORA,
    "load_in_8bit": "use --load-in-4bit or --no-load-in-4bit",
    "model_init_kwargs": "the kit loads the model: use --model and --load-in-4bit",
    "model_revision": "name a folder with --model, or use the newest",
    "chat_template": "the model's own is used",
    "remove_unused_columns": "reward functions receive every column",
    "logging_steps": "every step is logged",
    "logging_strategy": "every step is logged",
    "save_strategy": "use --save-steps and --save-minutes",
    "save_total_limit": "use --keep-checkpoints",
    "resume_from_checkpoint": "the same command line again continues a run",
    "overwrite_output_dir": "the same command line again continues a run; --overwrite starts anew",
    "disable_tqdm": "the kit has its own progress bar",
    "hub_token": "set the environment variable HF_TOKEN, so that no file holds it",
    "push_to_hub": _HUB,
    "trust_remote_code": "the kit runs no code from model repositories",
    "eval_strategy": _HELD_OUT,
    "evaluation_strategy": _HELD_OUT,
    "eval_steps": _HELD_OUT,
    "eval_on_start": _HELD_OUT,
    "eval_delay": _HELD_OUT,
    "do_eval": _HELD_OUT,
    "do_predict": _HELD_OUT,
    "load_best_model_at_end": _HELD_OUT,
    "metric_for_best_model": _HELD_OUT,
    "wandb_project": "set the environment variable WANDB_PROJECT",
    "dataset_test_split": "name it where it is used, evaluate.py --split",
}
# What the kit does in any case, which a recipe may say too.
_AS_IT_IS = {
    "use_peft": True,
    "vllm_mode": "colocate",
    "vllm_tensor_parallel_size": 1,
    "remove_unused_columns": False,
    "logging_strategy": "steps",
    "load_in_8bit": False,
    "eval_strategy": "no",
    "evaluation_strategy": "no",
    "eval_on_start": False,
    "do_eval": False,
    "do_predict": False,
    "load_best_model_at_end": False,
    "push_to_hub": False,
    "overwrite_output_dir": False,
    "trust_remote_code": False,
    "auto_find_batch_size": False,
    "disable_tqdm": True,
    "model_revision": "main",
}


def goes_without_saying(name: str, value: Any) -> bool:
    """Does a recipe say with this what the kit does in any case?"""
    if value is None and name in _NOT_FROM_A_FILE:
        return True
    as_it_is = _AS_IT_IS.get(name)
    return as_it_is is not None and value in ((as_it_is, False) if as_it_is == "no" else (as_it_is,))  # YAML's no


def further_field(name: str, value: Any, source: str, knobs: Iterable[str], max_steps: int | None) -> Any:
    """The value of a field of GRPOConfig that is no knob, in the field's own type.

    Raises:
        UserError: there is no such field, a file may not set it, or the value is of another type.
    """
    if name in _NOT_FROM_A_FILE:
        raise UserError(f"{source}{name} cannot be set here: {_NOT_FROM_A_FILE[name]}")
    if name == "warmup_ratio":  # a field with transformers 4, which warmup_steps overrules
        steps = ", that part of the steps that --plan names without it"  # where the epochs decide
        if max_steps is not None and isinstance(value, float):
            steps = f", {value} of {max_steps} steps is {round(value * max_steps)}"
        raise UserError(f"{source}{name} cannot be set here: use --warmup-steps{steps}")
    if name not in trainer_fields():
        hint = nearest(str(name), [*knobs, *ALIASES, *trainer_fields()]) or ": --help lists the settings"
        raise UserError(f"{source}there is no setting {name!r}{hint}")
    try:
        return _in_its_type(value, set(re.findall(r"\w+", trainer_fields()[name])))
    except ValueError as error:
        raise UserError(f"{source}{name} is {value!r}: {error}") from None


def _in_its_type(value: Any, kinds: set[str]) -> Any:
    """``value`` as the ``kinds`` (the words of the field's type) take it; YAML reads ``1e-4`` as a text.

    Raises:
        ValueError: they do not, with the remedy.
    """
    several = kinds & {"list", "List", "dict", "Dict", "tuple"}
    if value is None or (isinstance(value, (list, dict)) and several):
        return value
    if (isinstance(value, bool) and kinds & {"bool", "str"}) or (isinstance(value, str) and "str" in kinds):
        return value
    if isinstance(value, (int, float, str)) and not isinstance(value, bool) and not several:
        if kinds & {"int", "float"}:
            return _as_number(value, whole="float" not in kinds)
        if "str" in kinds:
            return str(value)  # run_name: 7
    raise ValueError(_remedy(kinds, bool(several)))


def _as_number(value: float | str, whole: bool) -> float:
    try:
        number = float(value)
        if not math.isfinite(number) or (whole and not number.is_integer()):
            raise ValueError
    except ValueError:
        raise ValueError(_remedy({"int"} if whole else {"float"}, several=False)) from None
    return int(number) if whole else value if isinstance(value, int) else number


def _remedy(kinds: set[str], several: bool) -> str:
    words = {"float": "give a number", "int": "give a whole number", "bool": "write true or false"}
    return "give a list" if several else next((words[kind] for kind in words if kind in kinds), "give a text")
