"""Where llama.cpp comes from: a finished build, a folder that the user names, never half a build."""

import json

import pytest

from kit.cli.errors import UserError
from kit.llama_cpp import build as llama_cpp
from kit.llama_cpp.server import ask, running_server


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("UNSLOTH_LLAMA_CPP_PATH", raising=False)
    return tmp_path / "onecard"


def make_programs(folder):
    folder.mkdir(parents=True)
    for name in llama_cpp.NEEDED_SOURCE:
        (folder / name).touch()
    for name in llama_cpp.PROGRAMS:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


def test_a_folder_without_its_stamp_is_not_trusted(own_cache):
    make_programs(llama_cpp.llama_cpp_folder())
    assert not llama_cpp.is_ready()


def test_a_build_of_other_programs_is_not_trusted(own_cache):
    folder = llama_cpp.llama_cpp_folder()
    make_programs(folder)
    stamp = folder / llama_cpp.STAMP_FILE
    stamp.write_text(json.dumps(llama_cpp._stamp()))
    assert llama_cpp.is_ready()
    stamp.write_text(json.dumps({**llama_cpp._stamp(), "programs": ["llama-quantize"]}))
    assert not llama_cpp.is_ready()


def test_the_folder_that_the_user_names_is_used(own_cache, tmp_path, monkeypatch):
    make_programs(tmp_path / "mine")
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path / "mine"))
    assert llama_cpp.ensure() == tmp_path / "mine"
    assert llama_cpp.program("llama-quantize") == tmp_path / "mine" / "llama-quantize"


def test_an_incomplete_folder_that_the_user_names_is_refused_and_left_alone(own_cache, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path / "mine"))
    with pytest.raises(UserError, match="unset the variable"):
        llama_cpp.ensure()
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


def test_the_server_stops_when_its_block_fails(chain):
    gguf = chain / "short" / "gguf" / "short.q8_0.gguf"
    with pytest.raises(RuntimeError), running_server(gguf, slots=1, context_per_slot=256) as address:  # noqa: PT012
        assert ask(address, [{"role": "user", "content": "9 + 9?"}], max_tokens=4)[1] <= 4
        raise RuntimeError
    with pytest.raises(OSError, match=r"refused|Connection"):
        ask(address, [{"role": "user", "content": "9 + 9?"}], max_tokens=4)


def test_a_file_that_is_no_gguf_is_refused(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    with pytest.raises(UserError, match="could not load"), running_server(broken, slots=1, context_per_slot=64):
        pass


def test_the_gguf_types_are_those_that_the_program_names():
    import re
    import subprocess

    shown = subprocess.run([llama_cpp.program("llama-quantize"), "--help"], capture_output=True, text=True, check=False)
    named = re.findall(r"\bor +(\w+) +:", shown.stdout + shown.stderr)
    assert {name.lower() for name in named} == set(llama_cpp.GGUF_TYPES)
