"""What a model folder says about generating, and what an export says: that it is greedy, as it was scored.

Published folders ask for penalties, temperatures and cuts (Qwen2.5-0.5B-Instruct: repetition_penalty 1.1, temperature
0.7, top_k 20). Engines take them as defaults and llama.cpp's converter writes them into the GGUF, so that "greedy"
would mean another thing in each. The kit samples by what it passes, everywhere, and exports say nothing else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.storage.atomic import write_whole

_FILE = "generation_config.json"
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
_SHAPES_NOTHING = {
    *_TOKENS, "do_sample", "transformers_version", "_from_model_config", "use_cache", "output_attentions",
    "output_hidden_states",
}  # fmt: skip
# In llama.cpp's words, for the GGUF's metadata: the likeliest token, and nothing cut or punished at other temperatures.
GREEDY_METADATA = {
    "general.sampling.temp": 0.0, "general.sampling.top_k": 0, "general.sampling.top_p": 1.0,
    "general.sampling.min_p": 0.0, "general.sampling.penalty_repeat": 1.0,
}  # fmt: skip


def tokens_of(settings: dict[str, Any]) -> dict[str, Any]:
    """Of generation settings, those that name tokens."""
    return {name: settings[name] for name in _TOKENS if settings.get(name) is not None}


def as_ends(eos_token_id: int | list[int] | None) -> list[int]:
    """An ``eos_token_id``, which settings write as none, one or several tokens, as a list."""
    return eos_token_id if isinstance(eos_token_id, list) else [] if eos_token_id is None else [eos_token_id]


def all_ends(tokenizer: Any, ends: int | list[int] | None) -> list[int]:
    """The tokens that end a reply, in every engine: the tokenizer's and the model's own, ``ends``."""
    return sorted({tokenizer.eos_token_id, *as_ends(ends)} - {None})


def ends_of_turn(folder: Path) -> list[int]:
    """The tokens at which the folder's own settings end a reply."""
    file = folder / _FILE
    return as_ends(json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None)


def write_greedy(folder: Path, pad_token_id: int | None, ends: list[int]) -> None:
    """Make a folder's generation_config.json say what its export is scored with: greedy, its tokens, nothing else.

    ``ends`` are the tokens that end a turn.
    """
    file = folder / _FILE
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    eos = ends[0] if len(ends) == 1 else ends or None
    tokens = tokens_of(before | {"pad_token_id": pad_token_id, "eos_token_id": eos})
    write_whole(file, json.dumps(tokens | {"do_sample": False}, indent=2) + "\n")


def shapes_replies(folder: Path) -> dict[str, Any]:
    """What a folder's generation settings would do to replies beyond ending them; an export has nothing here."""
    file = folder / _FILE
    said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = {name: value for name, value in said.items() if name not in _SHAPES_NOTHING and value is not None}
    return found | ({"do_sample": True} if said.get("do_sample") else {})
