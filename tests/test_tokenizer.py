"""The demo's tokenizer is the real Qwen2 one."""

import pytest

from demo.tokenizer import load_tokenizer, vector_mismatches
from kit.llama_cpp.build import llama_cpp_folder
from kit.prompts import build_prompt


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer()


def test_another_tokenization_is_noticed(tokenizer):
    def wrong(text, **options):
        return tokenizer(text.lower(), **options)

    assert vector_mismatches(wrong, llama_cpp_folder() / "models")


def test_a_turn_ends_with_im_end_and_padding_is_something_else(tokenizer):
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 151645)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|endoftext|>", 151643)
    assert len(tokenizer) == 151_936


def test_chatml(tokenizer):
    text = tokenizer.apply_chat_template(build_prompt("Why?", "Be brief."), add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
