"""SentencePiece's own file, which llama.cpp's converter reads for some families and transformers 5 no longer writes.

Without it Gemma 3 and Phi-3 pass every check before training, for which the base's folder is asked, and then the merged
model, all trained, cannot become a GGUF ("BPE pre-tokenizer was not recognized").
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from kit.chat_templates import read_json
from kit.storage.hub import model_file

NAME = "tokenizer.model"


def keep_sentencepiece_file(models: tuple[str, ...], tokenizer: Any, folder: Path) -> None:
    """Put the first model's that has one into a folder with a saved tokenizer, with what the converter reads beside it.

    That is which tokens were added, and which of them mark turns: in SentencePiece's file these are words as any other.

    Args:
        models: folders or Hub ids, in the order in which they are asked.
        tokenizer: what was saved into ``folder``.
        folder: the merged model's.
    """
    file = next((found for model in models if (found := model_file(model, NAME))), None)
    if file is None:
        return
    shutil.copyfile(file, folder / NAME)
    marks = {tokenizer.eos_token, *_marks_of(file.parent)}
    settings = folder / "tokenizer_config.json"
    added = {
        str(number): {"content": token.content, "special": token.special or token.content in marks}
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    said = read_json(settings) | {"added_tokens_decoder": added}
    settings.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _marks_of(folder: Path) -> set[str]:
    added = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    return {token["content"] for token in added.values() if token.get("special")}
