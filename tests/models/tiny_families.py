"""Tiny models with random weights of other families, with the families' own chat templates and, but for Gemma's, their
own vocabularies. These come from llama.cpp's source, which has them for tests of its own; it has none of Gemma 3.
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from kit.llama_cpp.build import llama_cpp_folder

# Template, end of turn, padding, and what the config has besides the sizes. Gemma 3's turns are Gemma 2's; every sixth
# layer of it sees all of the text.
FAMILIES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "qwen3": ("Qwen-Qwen3-0.6B", "<|im_end|>", "<|endoftext|>", {"head_dim": 32}),
    "llama": ("meta-llama-Llama-3.2-3B-Instruct", "<|eot_id|>", "<|end_of_text|>", {}),
    "gemma3_text": (
        "google-gemma-2-2b-it", "<end_of_turn>", "<pad>",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "num_hidden_layers": 6},
    ),
}  # fmt: skip
# How Llama 3 splits a text before it merges (its tokenizer.json).
_LLAMA_3_SPLITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def make(family: str, folder: Path) -> Path:
    """Write the model of a family."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    template, end, pad, further = FAMILIES[family]
    folder.mkdir(parents=True)
    tokenizer = {"qwen3": _qwens, "llama": _llama_3s, "gemma3_text": _like_gemmas}[family](folder)
    tokenizer.eos_token, tokenizer.pad_token = end, pad
    tokenizer.chat_template = _from_llama_cpp(f"templates/{template}.jinja").read_text(encoding="utf-8")
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
        "tie_word_embeddings": True, "initializer_range": 0.2, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config = AutoConfig.for_model(family, **(sizes | further))
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if family == "gemma3_text":
        _publish_as_google(tokenizer, folder)
    return folder


def _from_llama_cpp(name: str) -> Path:
    return llama_cpp_folder() / "models" / name


def _qwens(_folder: Path, vocabulary: str = "qwen2") -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(_from_llama_cpp(""), gguf_file=f"ggml-vocab-{vocabulary}.gguf")


def _llama_3s(folder: Path) -> Any:
    """Transformers reads every Llama's vocabulary back as Llama 2's, with bytes as tokens; llama.cpp believes it."""
    from tokenizers import Regex, decoders, pre_tokenizers, processors

    tokenizer = _qwens(folder, "llama-bpe")
    backend, begin = tokenizer.backend_tokenizer, tokenizer.bos_token
    model = backend.model
    model.byte_fallback, model.fuse_unk, model.ignore_merges = False, False, True
    backend.model = model
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_LLAMA_3_SPLITS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.bos_token_id)]
    )
    return tokenizer


def _like_gemmas(folder: Path) -> Any:
    """SentencePiece's pieces with Gemma's special tokens, learned from made-up problems."""
    from sentencepiece import SentencePieceTrainer
    from transformers import GemmaTokenizer

    from demo.problems import problems

    questions = (problem.question for problem in islice(problems(seed=1, heldout=False), 300))
    SentencePieceTrainer.train(
        sentence_iterator=questions, model_prefix=str(folder / "tokenizer"),
        model_type="bpe", vocab_size=600, hard_vocab_limit=False, byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        user_defined_symbols=["<mask>", "<start_of_turn>", "<end_of_turn>", "\n"], minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    return GemmaTokenizer.from_pretrained(folder)


def _publish_as_google(tokenizer: Any, folder: Path) -> None:
    """Gemma's folders have the added tokens besides, in the file that transformers wrote until version 5, and lack one
    thing: config.json leaves out that the head is the embedding."""
    of_model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    of_model.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(of_model), encoding="utf-8")
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("vocab_file", None)
    turns = ("<start_of_turn>", "<end_of_turn>")
    config["added_tokens_decoder"] = {
        str(number): {"content": token.content, "special": token.special or token.content in turns}
        for number, token in tokenizer.added_tokens_decoder.items()
    }
    file.write_text(json.dumps(config), encoding="utf-8")
