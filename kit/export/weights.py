"""A whole model in float32, with its tokenizer, for checking an export.

With transformers and PEFT as they come, not as Unsloth patches them.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.chat_templates import keep_default_template
from kit.planning.memory_now import free_card, free_memory_bytes
from kit.storage.hub import weights_bytes

if TYPE_CHECKING:
    import torch

_ROOM = 1.5  # of a model's own size: what a pass over a reply, and reading the file, take besides


def no_room_for(base: str) -> str:
    """Why this machine cannot hold the model in float32, as a sentence; empty where it can."""
    needed, free = 2 * _ROOM * weights_bytes(base), free_memory_bytes()
    if needed <= free:
        return ""
    return f"not looked at: it takes {needed / 1e9:.1f} GB of memory in float32, {free / 1e9:.1f} are free"


def load_model(path: Path | str) -> Any:
    """A model in float32, on the card if there is one with room for it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(path), dtype=torch.float32).eval()
    free_card()
    fits = torch.cuda.is_available() and _ROOM * model.get_memory_footprint() < torch.cuda.mem_get_info()[0]
    return model.to("cuda") if fits else model


def load_tokenizer(path: Path | str) -> Any:
    """The tokenizer of a folder or Hub id; loaded once while its files stay as they are: it takes a second or two."""
    files = sorted(Path(path).glob("*.j*")) if Path(path).is_dir() else []
    return _load_tokenizer(str(path), tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=4)
def _load_tokenizer(path: str, _: tuple[int, ...]) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    keep_default_template(tokenizer)
    return tokenizer


def next_token(model: Any, ids: list[int], last: int) -> torch.Tensor:
    """Log-probabilities of what comes at each of the ``last`` positions of ``ids``; shape (last, vocabulary)."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([ids], device=model.device), logits_to_keep=last + 1).logits
    return logits[0, -last - 1 : -1].float().log_softmax(-1).cpu()
