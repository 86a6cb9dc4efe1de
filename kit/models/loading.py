"""The only importer of Unsloth: load the base, attach LoRA, load what was trained.

Unsloth patches TRL, transformers and PEFT when it is imported and must come first, so scripts call these functions
before they import any of the three.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import ranks
from kit.chat_templates import keep_default_template
from kit.cli.errors import UserError, first_line
from kit.cli.machine_failures import is_lost, is_out_of_memory
from kit.models.merged_tensors import PEFT_ERRORS
from kit.models.unpacking import unpack_base
from kit.models.vllm_kernels import load_this_processors_kernels
from kit.planning.engine_choice import (
    CARD_ENVIRONMENT,
    NOT_ON_THIS_CARD,
    PROCESSOR_ENVIRONMENT,
    ROLLOUTS_WITHOUT,
    did_not_load,
)
from kit.planning.memory_now import free_card
from kit.planning.plan import Plan
from kit.storage.generation_settings import tokens_of

if TYPE_CHECKING:
    import torch

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def load_for_training(plan: Plan) -> tuple[Any, Any, Plan]:
    """The base model in 4 bits with a fresh LoRA adapter, its tokenizer, and the plan that holds for them.

    Where vLLM cannot be loaded, one sentence says why, and the plan is another: Unsloth generates the rollouts.

    Raises:
        UserError: vLLM is required and cannot be loaded.
    """
    for name, value in environment(plan).items():
        os.environ.setdefault(name, value)
    unsloth = _import_unsloth()
    load = unsloth.FastLanguageModel.from_pretrained
    loaded, reason = None, ""
    try:
        loaded = load(**base_arguments(plan), **vllm_arguments(plan))
        if vllm_arguments(plan) and not hasattr(loaded[0], "vllm_engine"):  # on some cards Unsloth leaves it out
            loaded, reason = None, NOT_ON_THIS_CARD
    except Exception as error:  # vLLM, its kernels and the driver each have their own kinds
        if not vllm_arguments(plan):
            raise
        reason = did_not_load(error)
        traceback.clear_frames(error.__traceback__)  # they hold on to half an engine
    reasons = ranks.gathered(reason)
    if any(reasons) and not all(reasons):  # those that have loaded it would hold its memory
        without = next(number for number, said in enumerate(reasons) if said)
        ranks.refuse(f"process {without} of {len(reasons)}: {reasons[without]}, and the others do: use --vllm off")
    if loaded is None:
        if plan.settings.vllm == "require":
            raise UserError(f"{reason}: --vllm auto goes on without it")
        hint = "; requirements-t4.txt is the set for this card" if plan.choice.dtype == "float16" else ""
        print(f"{reason}: {ROLLOUTS_WITHOUT}{hint}.")
        plan = plan.without_vllm()
        free_card()
        loaded = load(**base_arguments(plan))
    model, tokenizer = loaded
    keep_default_template(tokenizer)
    # Unsloth says the training's own length there, and what is exported would go on saying so.
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    tokenizer.model_max_length = length or tokenizer.model_max_length
    policy = unsloth.FastLanguageModel.get_peft_model(model, **lora_arguments(plan))
    if plan.unpacks_base:
        unpack_base(policy)
    _sample_by_what_is_passed(policy)
    _sample_cheaply(policy)
    if not plan.choice.card and plan.settings.cpu_dtype == "bfloat16":
        policy.generate = _in_bfloat16(policy.generate)
    return policy, tokenizer, plan


def base_arguments(plan: Plan) -> dict[str, Any]:
    """What Unsloth's ``from_pretrained`` is told of the base model."""
    settings = plan.settings
    return {
        "model_name": settings.model,
        "max_seq_length": settings.max_prompt_length + settings.max_completion_length,
        "dtype": _dtype(plan.choice.dtype),
        "load_in_4bit": settings.load_in_4bit,
    }


def vllm_arguments(plan: Plan) -> dict[str, Any]:
    """What it is told of vLLM besides; ``max_num_seqs`` and the standby it hands on to ``load_vllm``."""
    if not plan.choice.use_vllm or not plan.choice.card:  # on a processor TRL loads it, see kit/training/rollouts.py
        return {}
    arguments = {
        "fast_inference": True,
        "max_lora_rank": plan.settings.lora_rank,
        "gpu_memory_utilization": plan.memory_share,
    }
    if plan.layout is not None:
        sequences = plan.layout.sequences
        arguments["max_num_seqs"] = sequences + (sequences == 256)  # Unsloth takes its own default for "not set"
        arguments["unsloth_vllm_standby"] = plan.layout.standby
    return arguments


def lora_arguments(plan: Plan) -> dict[str, Any]:
    """What Unsloth's ``get_peft_model`` is told of the adapter."""
    settings = plan.settings
    return {
        "r": settings.lora_rank,
        "lora_alpha": settings.lora_alpha,
        "target_modules": list(LORA_TARGETS),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_gradient_checkpointing": "unsloth" if plan.choice.gradient_checkpointing else False,
        "random_state": settings.seed,
    }


def environment(plan: Plan) -> dict[str, str]:
    """What Unsloth reads from the environment when it is imported; what the user has set there stays."""
    if not plan.choice.card:
        asked = {"UNSLOTH_CPU_BF16": "1"} if plan.settings.cpu_dtype == "bfloat16" else {}  # else off where it is slow
        return asked | (PROCESSOR_ENVIRONMENT if plan.choice.use_vllm else {})
    if not plan.choice.use_vllm:
        return {}
    variables = CARD_ENVIRONMENT | {
        "UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE": "1",  # the plan's own share, not the one that standby would choose
        # Else it is taken where there is a CUDA toolkit to compile it, and the user is told to install one elsewhere.
        "UNSLOTH_VLLM_NO_FLASHINFER": "1",
    }
    if plan.layout and plan.layout.standby:
        variables["UNSLOTH_VLLM_STANDBY"] = "1"
    return variables


def load_for_inference(path: str, dtype: str, base: str | None = None, load_in_4bit: bool = False) -> tuple[Any, Any]:
    """A base or merged model, or an adapter folder on ``base``, whatever base it names itself, ready to generate.

    Raises:
        UserError: what lies there cannot be loaded.
    """
    unsloth = _import_unsloth()
    try:
        with _adapter_on(Path(path), base) as folder:
            model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
                model_name=str(folder), max_seq_length=None, dtype=_dtype(dtype), load_in_4bit=load_in_4bit,
                use_gradient_checkpointing=False,  # its default compares max_seq_length, which is the model's own here
                use_exact_model_name=not load_in_4bit,  # the weights that were asked for, no copy of them elsewhere
            )  # fmt: skip
    except (*PEFT_ERRORS, ImportError) as error:
        if is_out_of_memory(error) or is_lost(error):
            raise
        has_no_place = base and "size mismatch" in str(error)
        on_base = (
            f" on {base}: if it adds tokens, score merged/; else name its base with --base" if has_no_place else ""
        )
        raise UserError(f"{path} cannot be loaded ({first_line(error)}){on_base}") from error
    unsloth.FastLanguageModel.for_inference(model)
    _sample_by_what_is_passed(model)
    _sample_cheaply(model)
    return model, tokenizer


@contextmanager
def _adapter_on(path: Path, base: str | None) -> Iterator[Path]:
    """``path`` itself, or for an adapter whose config names another base, a copy that names the wanted one."""
    config_file = path / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else {}
    if base in (None, config.get("base_model_name_or_path")):
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(path, Path(scratch) / "adapter"))
        config["base_model_name_or_path"] = base
        (copy / config_file.name).write_text(json.dumps(config), encoding="utf-8")
        yield copy


def _sample_by_what_is_passed(model: Any) -> None:
    """Of the folder's generation settings only the tokens count, not its penalties, temperature or lengths.

    transformers fills what a caller leaves out from there, and Unsloth sets a length in it, which beside TRL's limit is
    a warning at every step.
    """
    model.generation_config = type(model.generation_config)(**tokens_of(model.generation_config.to_dict()))


def _sample_cheaply(model: Any) -> None:
    """Only a processor makes its random numbers one by one."""
    from kit.models.cpu_sampling import sampling_cheaply

    if model.device.type == "cpu":
        model.generate = sampling_cheaply(model.generate)


def _in_bfloat16(generate: Callable[..., Any]) -> Callable[..., Any]:
    """Completions are written in the number type that the trainer's passes have."""
    import torch

    @wraps(generate)
    def computing(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return generate(*args, **kwargs)

    return computing


def _dtype(name: str) -> torch.dtype:
    import torch

    return getattr(torch, name)


def _import_unsloth() -> Any:
    load_this_processors_kernels()
    try:
        import unsloth
    except ImportError as error:
        raise UserError(
            f"Unsloth cannot be imported ({error}): install the packages that train_lora.py --plan names, or run `make "
            "setup` on a CPU"
        ) from error
    return unsloth
