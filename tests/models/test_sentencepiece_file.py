"""A merged Gemma 3 can become a GGUF, as its base could, and reads a chat as its training did."""

import shutil

import pytest
from transformers import AddedToken, AutoTokenizer

from kit.cli.errors import UserError
from kit.export.checks.merged import tokens_agree
from kit.llama_cpp.gguf import GgufFile, why_not_converted
from kit.models.base_check import check_before_training
from kit.models.sentencepiece_file import NAME, has_none, keep_sentencepiece_file
from kit.storage import hub
from tests.models.tiny_families import make

CONTROL, NORMAL = 3, 1  # llama.cpp's token types


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """With a mark that takes the spaces behind it, as Phi-3's do."""
    folder = make("gemma3_text", tmp_path_factory.mktemp("gemma") / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("<end_of_turn>", rstrip=True, normalized=False, special=True)])
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def merged(base, tmp_path):
    """What merging writes, as far as a converter looks for the vocabulary."""
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(base / name, tmp_path / name)
    return tmp_path


def test_it_is_converted_with_the_bases_file_and_not_without(base, merged, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    assert why_not_converted(base, scratch) == ""
    assert has_none(merged)
    assert why_not_converted(merged, scratch)
    keep_sentencepiece_file((str(merged), str(base)), AutoTokenizer.from_pretrained(merged), merged)
    assert why_not_converted(merged, scratch) == ""
    said = GgufFile(scratch / "vocabulary.gguf")
    types, tokens = said.value("tokenizer.ggml.token_type"), said.value("tokenizer.ggml.tokens")
    assert {types[tokens.index(mark)] for mark in ("<start_of_turn>", "<end_of_turn>", "<eos>")} == {CONTROL}
    assert types[tokens.index("Ana")] == NORMAL


def test_a_chat_becomes_the_same_tokens(base, merged):
    keep_sentencepiece_file((str(base),), AutoTokenizer.from_pretrained(merged), merged)
    assert tokens_agree(merged, base).passed
    settings = merged / "tokenizer_config.json"
    settings.write_text(settings.read_text(encoding="utf-8").replace('"rstrip": true', '"rstrip": false'), "utf-8")
    check = tokens_agree(merged, base)
    assert not check.passed
    assert "a chat becomes other tokens" in check.says


def test_a_base_without_it_is_refused_before_training(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns(NAME))
    with pytest.raises(UserError, match=f"Its {NAME} is not here"):
        check_before_training(str(folder))


def test_a_model_that_reads_bytes_has_no_such_file_and_nobody_is_asked(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"pre_tokenizer": {"type": "ByteLevel"}}', encoding="utf-8")
    keep_sentencepiece_file(("OWNER/NAME",), None, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


def test_the_hub_is_asked_for_the_commit_that_is_here(monkeypatch, tmp_path):
    """Asked for the newest, its client points to that, and the model that is here is not found any more."""
    asked = []
    monkeypatch.setattr(hub, "local_folder", lambda _: tmp_path / "0123abc")
    monkeypatch.setattr(hub, "is_offline", lambda: False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **how: asked.append(how) or tmp_path / NAME)
    assert hub.model_file("OWNER/NAME", NAME) == tmp_path / NAME
    assert [how["revision"] for how in asked] == ["0123abc"]
