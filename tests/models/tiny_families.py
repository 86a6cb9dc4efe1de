"""Tiny models with random weights of other families, with the families' own vocabularies and chat templates.

These come from llama.cpp's source, which has them for tests of its own. Gemma 3's vocabulary is not among them; with
Llama 3's, read back from there, llama-server refuses a prompt ("unordered_map::at"), and nobody knows yet why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.llama_cpp.build import llama_cpp_folder

# Vocabulary, template, end of turn, padding, and what the config has besides the sizes.
FAMILIES: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "qwen3": ("qwen2", "Qwen-Qwen3-0.6B", "<|im_end|>", "<|endoftext|>", {"head_dim": 32}),
}  # fmt: skip


def make(family: str, folder: Path) -> Path:
    """Write the model of a family."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    vocabulary, template, end, pad, further = FAMILIES[family]
    source = llama_cpp_folder() / "models"
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=f"ggml-vocab-{vocabulary}.gguf")
    tokenizer.eos_token, tokenizer.pad_token = end, pad
    tokenizer.chat_template = (source / "templates" / f"{template}.jinja").read_text(encoding="utf-8")
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), hidden_size=64, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=4096, tie_word_embeddings=True,
        initializer_range=0.2, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **further,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
