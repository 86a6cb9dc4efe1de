"""Is a base's output head its embedding? Its config.json may leave it to its family to say so."""

import json

import pytest

from kit.cli.errors import UserError
from kit.models.tensors import is_tied


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        ({"model_type": "gemma3_text"}, True),  # as published
        ({"model_type": "gemma2", "tie_word_embeddings": False}, False),
        ({"model_type": "qwen2"}, False),
        ({"model_type": "qwen2", "tie_word_embeddings": True}, True),
    ],
)
def test_a_config_that_leaves_it_out_means_what_its_family_does(tmp_path, config, tied):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert is_tied(tmp_path) is tied


def test_a_base_that_is_not_here_is_said(tmp_path):
    with pytest.raises(UserError, match=r"gone: its config.json cannot be had"):
        is_tied(tmp_path / "gone")
