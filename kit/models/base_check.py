"""What a base model decides, decided before training: its chat template, its tokens, whether llama.cpp can read it.

Read from the model's small files (configuration and tokenizer), so that it takes seconds and needs no weights.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.chat_templates import check_template, told_not_to_think
from kit.cli.errors import UserError, first_line
from kit.llama_cpp import build as llama_cpp
from kit.llama_cpp.gguf import why_not_converted
from kit.models.positions import check_positions
from kit.models.sentencepiece_file import NAME as SENTENCEPIECE
from kit.models.sentencepiece_file import has_none
from kit.storage.hub import TIMEOUT_S, folder_here, is_offline, model_file
from kit.storage.model_files import read_json, template_in

_SMALL = ["*.json", "*.jinja", "*.model", "*.txt"]
# Tokens that models keep for padding or never write, in the order in which they are taken where the pad token is the
# end of turn: the names are those of the Qwen, Llama, SmolLM, Gemma and Mistral families.
PADS = (
    "<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|vision_pad|>", "<|endoftext|>", "<|end_of_text|>",
    "<unk>",
)  # fmt: skip


def check_before_training(model: str) -> None:
    """Refuse a base that could be trained and then not be asked, or not be exported.

    Raises:
        UserError: with the reason and what to take instead.
    """
    with small_files(model) as folder:
        if folder is None:
            return
        check_template(f"--model {model}", template_in(folder))
        check_positions(folder, f"--model {model}")
        tokens = _tokens(folder)
        end = tokens.get("eos_token")
        if end is not None and tokens.get("pad_token") == end and another_pad(end, _vocabulary(folder)) is None:
            raise UserError(
                f"--model {model}: its pad token is its end-of-turn token {end!r}, so that turns never seem to end; "
                f"and none of {', '.join(PADS)} is in its vocabulary: add a pad token to its tokenizer and save it"
            )
        if reason := _not_for_llama_cpp(folder):
            lacks_tokens = "tokenizer" in reason and has_none(folder)
            remedy = (
                f"Its {SENTENCEPIECE} is not here, from which llama.cpp reads the tokens of some families: fetch that "
                f"file too, into {folder}"
                if lacks_tokens
                else "Name a model that it knows (Qwen2.5, Qwen3, Llama 3, SmolLM2, Gemma 3, Mistral)"
            )
            raise UserError(f"--model {model} cannot become a GGUF file, says llama.cpp: {reason}. {remedy}")


@contextmanager
def small_files(model: str) -> Iterator[Path | None]:
    """A folder with a model's configuration and tokenizer; ``None`` where these cannot be had without the rest."""
    if (here := folder_here(model)) or is_offline():
        if here and has_none(here):
            model_file(model, SENTENCEPIECE)
        yield here
        return
    from huggingface_hub import snapshot_download

    with tempfile.TemporaryDirectory() as scratch:  # in the cache they would pass for the whole model
        try:
            snapshot_download(model, allow_patterns=_SMALL, local_dir=scratch, etag_timeout=TIMEOUT_S)
        except Exception as error:  # each network library brings its own kinds
            print(f"{model}: its small files could not be looked at ({first_line(error)})")
            yield None
            return
        yield Path(scratch)


def another_pad(end_of_turn: str, vocabulary: Any) -> str | None:
    """The token to pad with where a published tokenizer pads with its end of turn; ``None`` where none is known.

    >>> another_pad("<|im_end|>", {"<|im_end|>": 2, "<|endoftext|>": 0})
    '<|endoftext|>'
    """
    return next((token for token in PADS if token in vocabulary and token != end_of_turn), None)


def mend_padding(tokenizer: Any, model: str) -> str:
    """Give a tokenizer that pads with its end of turn, or with nothing, a pad token of its own.

    Trainers leave padding out of what is learned, and with it the end of turn, if it is the same token. (On a card
    Unsloth does this itself when it loads.) Returns what is another now than in the base's folder, for people to read.
    """
    with small_files(model) as folder:
        own = _tokens(folder).get("pad_token") if folder else tokenizer.pad_token
    if tokenizer.pad_token in (None, tokenizer.eos_token):
        known = tokenizer.get_vocab()
        is_apart = own not in (None, tokenizer.eos_token) and own in known
        tokenizer.pad_token = own if is_apart else another_pad(tokenizer.eos_token, known) or tokenizer.pad_token
    if own == tokenizer.pad_token:
        return ""
    said = f"pad token {tokenizer.pad_token}: the base has {own or 'none'}"
    print(said)
    return said


def mend_thinking(tokenizer: Any) -> str:
    """Have a tokenizer's template let no model think before it replies; what merging and exports take from it does so
    too. Returns what is another now than in the base's folder, for people to read."""
    template = tokenizer.chat_template
    if not isinstance(template, str) or (told := told_not_to_think(template)) == template:
        return ""
    tokenizer.chat_template = told
    said = "its chat template lets the model think first, and is told not to: the reasoning stands in the reply's tags"
    print(said)
    return said


def _tokens(folder: Path) -> dict[str, str]:
    """The special tokens by their role, as text."""
    said = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    roles = {name: said.get(name) for name in ("eos_token", "pad_token", "bos_token")}
    return {name: value["content"] if isinstance(value, dict) else value for name, value in roles.items() if value}


def _vocabulary(folder: Path) -> set[str]:
    tokenizer = read_json(folder / "tokenizer.json")
    added = {token["content"] for token in tokenizer.get("added_tokens", [])}
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    return added | (set(vocabulary) if isinstance(vocabulary, dict) else set())


def _not_for_llama_cpp(folder: Path) -> str:
    """Why llama.cpp's converter does not take the model; empty where it does, or where llama.cpp is not built yet.

    It takes the converter some 8 s to say so; that it knows a tokenizer and architecture is remembered.
    """
    if not llama_cpp.is_ready():
        return ""
    known = llama_cpp.cache_folder() / "converter-knows" / _identity(folder)
    if known.exists():
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        reason = why_not_converted(folder, Path(scratch))
    if not reason:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()
    return reason


def _identity(folder: Path) -> str:
    """A hash of what the converter decides by: its own version, the architecture, the tokenizer."""
    config = read_json(folder / "config.json")
    parts = [llama_cpp.VERSION, str(llama_cpp.llama_cpp_folder()), str(config.get("architectures"))]
    files = [folder / name for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")]
    contents = b"".join(file.read_bytes() for file in files if file.is_file())
    return hashlib.sha256("".join(parts).encode() + contents).hexdigest()[:32]
