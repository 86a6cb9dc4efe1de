"""llama-server's refusals, in its own words and not in the last ones of its log."""

import pytest

from kit.cli.errors import UserError
from kit.llama_cpp.gguf import gguf_library
from kit.llama_cpp.server import running_server


@pytest.fixture
def file(tmp_path):
    """A file of metadata alone, of a kind of model that nobody knows."""
    writer = gguf_library().GGUFWriter(tmp_path / "x.gguf", "perceptron")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return tmp_path / "x.gguf"


def test_the_reason_why_a_file_does_not_load_is_said(file):
    whole = file.read_bytes()
    for content, reason in (
        (whole, "unknown model architecture: 'perceptron'"),
        (whole[:-4], "string length 10 exceeds remaining file size 6 bytes"),
        (b"<html>", "invalid magic characters: '<htm', expected 'GGUF'"),
    ):
        file.write_bytes(content)
        with pytest.raises(UserError) as refused, running_server(file, 1, 64):
            pass
        assert f"could not load {file}: {reason}. Fetch or export the file again" in str(refused.value)
