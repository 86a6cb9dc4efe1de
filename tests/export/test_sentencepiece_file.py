"""A merged Gemma 3 can become a GGUF, as its base could, and its turns are marked in it."""

import shutil

import pytest
from transformers import AutoTokenizer

from kit.export.sentencepiece_file import keep_sentencepiece_file
from kit.llama_cpp.gguf import GgufFile, why_not_converted
from tests.models.tiny_families import make

CONTROL, NORMAL = 3, 1  # llama.cpp's token types


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make("gemma3_text", tmp_path_factory.mktemp("gemma") / "base")


@pytest.fixture
def merged(base, tmp_path):
    """What merging writes, as far as a converter looks for the vocabulary."""
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    shutil.copyfile(base / "config.json", tmp_path / "config.json")
    return tmp_path


def test_it_is_converted_with_the_bases_file_and_not_without(base, merged, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    assert why_not_converted(base, scratch) == ""
    assert why_not_converted(merged, scratch)
    keep_sentencepiece_file((str(merged), str(base)), AutoTokenizer.from_pretrained(merged), merged)
    assert why_not_converted(merged, scratch) == ""
    said = GgufFile(scratch / "vocabulary.gguf")
    types, tokens = said.value("tokenizer.ggml.token_type"), said.value("tokenizer.ggml.tokens")
    assert {types[tokens.index(mark)] for mark in ("<start_of_turn>", "<end_of_turn>", "<eos>")} == {CONTROL}
    assert types[tokens.index("Ana")] == NORMAL
    assert AutoTokenizer.from_pretrained(merged).encode("Ana has\n12") == AutoTokenizer.from_pretrained(base).encode(
        "Ana has\n12"
    )


def test_other_families_have_no_such_file(tmp_path):
    keep_sentencepiece_file((str(tmp_path), "OWNER/NAME"), None, tmp_path)
    assert not list(tmp_path.iterdir())
