"""The only importer of Unsloth: load the base, attach LoRA, load what was trained, merge it.

Unsloth patches TRL, transformers and PEFT when it is imported and must come first, so scripts call these functions
before they import any of the three.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.errors import UserError
from kit.hardware import Choice
from kit.hub import sixteen_bit_name
from kit.settings import Settings

if TYPE_CHECKING:
    import torch

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def load_for_training(settings: Settings, choice: Choice) -> tuple[Any, Any]:
    """The base model in 4 bits with a fresh LoRA adapter, and its tokenizer."""
    unsloth = _import_unsloth()
    vllm_options = {}
    if choice.use_vllm:
        vllm_options = {
            "fast_inference": True,
            "max_lora_rank": settings.lora_rank,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
        }
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        model_name=settings.model,
        max_seq_length=settings.max_prompt_length + settings.max_completion_length,
        dtype=_dtype(choice.dtype),
        load_in_4bit=settings.load_in_4bit,
        **vllm_options,
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=list(LORA_TARGETS),
        lora_dropout=0.0,
        bias="none",
        use_gradient_checkpointing="unsloth" if choice.gradient_checkpointing else False,
        random_state=settings.seed,
    )
    return model, tokenizer


def load_for_inference(path: str, dtype: str, base: str | None = None, load_in_4bit: bool = False) -> tuple[Any, Any]:
    """A base or merged model, or an adapter folder on ``base`` (its own base where none is given), ready to generate.

    The 16-bit base is used also where training used a 4-bit repository, unless ``load_in_4bit``: that is the base
    that merging uses.
    """
    unsloth = _import_unsloth()
    with _adapter_on(Path(path), base, keep_4bit=load_in_4bit) as folder:
        model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
            model_name=str(folder), max_seq_length=None, dtype=_dtype(dtype), load_in_4bit=load_in_4bit
        )
    unsloth.FastLanguageModel.for_inference(model)
    return model, tokenizer


def save_merged(adapter: Path, base: str, dtype: str, folder: Path) -> None:
    """Merge an adapter into the 16-bit weights of its base, and save them with the tokenizer as safetensors."""
    model, tokenizer = load_for_inference(str(adapter), dtype, base)
    model.save_pretrained_merged(str(folder), tokenizer, save_method="merged_16bit")


@contextmanager
def _adapter_on(path: Path, base: str | None, keep_4bit: bool) -> Iterator[Path]:
    """``path`` itself, or for an adapter whose config names another base, a copy that names the wanted one."""
    config_file = path / "adapter_config.json"
    if not config_file.is_file():
        yield path
        return
    config = json.loads(config_file.read_text(encoding="utf-8"))
    wanted = base or config["base_model_name_or_path"]
    if not keep_4bit:
        wanted = sixteen_bit_name(wanted)
    if config["base_model_name_or_path"] == wanted:
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(path, Path(scratch) / "adapter"))
        config["base_model_name_or_path"] = wanted
        (copy / config_file.name).write_text(json.dumps(config), encoding="utf-8")
        yield copy


def _dtype(name: str) -> torch.dtype:
    import torch

    return getattr(torch, name)


def _import_unsloth() -> Any:
    try:
        import unsloth
    except ImportError as error:
        raise UserError(
            f"Unsloth cannot be imported ({error}): install requirements.txt, or run `make setup` on a CPU"
        ) from error
    return unsloth
