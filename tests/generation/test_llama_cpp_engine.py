"""How many prompts llama-server answers at once: what they take of memory is known before it starts."""

import pytest

from kit.generation.llama_cpp_engine import slots_for
from kit.generation.runtime import Room
from kit.llama_cpp.gguf import GgufFile, gguf_library

VALUES = 24 * 2 * (64 + 64)  # Qwen2.5-0.5B: layers, heads of keys and values, their widths


@pytest.fixture
def file(tmp_path):
    """The metadata of Qwen2.5-0.5B."""
    writer = gguf_library().GGUFWriter(tmp_path / "x.gguf", "qwen2")
    writer.add_block_count(24)
    writer.add_embedding_length(896)
    writer.add_head_count(14)
    writer.add_head_count_kv(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return tmp_path / "x.gguf"


def test_no_more_caches_than_prompts_or_than_the_memory_holds(file, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    assert GgufFile(file).cached_values_per_token == VALUES
    room, a_slot = Room(4000, 96), 4096 * VALUES * 4
    assert slots_for(file, room, free_bytes=1e12) == 32
    assert slots_for(file, Room(4000, 96, batch_size=3), free_bytes=1e12) == 3
    assert slots_for(file, room, free_bytes=file.stat().st_size + 2 * 5.5 * a_slot) == 5
    assert slots_for(file, room, free_bytes=0) == 1
    file.write_bytes(b"no GGUF")
    assert slots_for(file, room, free_bytes=0) == 32  # llama-server says what it is
