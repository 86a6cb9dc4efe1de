"""SentencePiece's own file, which llama.cpp's converter reads for some families and transformers 5 no longer writes.

Without it a Gemma 3 or Phi-3 cannot become a GGUF ("BPE pre-tokenizer was not recognized"). Transformers neither
fetches it with the model nor saves it with the tokenizer.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from kit.storage.hub import model_file
from kit.storage.model_files import read_json

NAME = "tokenizer.model"
_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")  # as transformers wrote them until 5
_OF_BYTES = re.compile(r'"type":\s*"ByteLevel"')


def has_none(folder: Path) -> bool:
    """Has a model folder no such file, and may its family have one? Those that read bytes (Qwen, Llama 3) never do."""
    tokenizer = folder / "tokenizer.json"
    if (folder / NAME).is_file() or not tokenizer.is_file():
        return False
    return _OF_BYTES.search(tokenizer.read_text(encoding="utf-8")) is None


def keep_sentencepiece_file(models: tuple[str, ...], tokenizer: Any, folder: Path) -> None:
    """Put the first model's that has one into a folder with a saved tokenizer, and which tokens were added to it.

    Args:
        models: folders or Hub ids, in the order in which they are asked.
        tokenizer: what was saved into ``folder``.
        folder: the merged model's.
    """
    if not has_none(folder):
        return
    file = next((found for model in models if (found := model_file(model, NAME))), None)
    if file is None:
        return
    shutil.copyfile(file, folder / NAME)
    settings = folder / "tokenizer_config.json"
    added = {
        str(number): {name: getattr(token, name) for name in _FIELDS}
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    said = read_json(settings) | {"added_tokens_decoder": added}
    settings.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
