"""A config.json of transformers 5 under an older one, whose version alone is made up here."""

import json

import pytest

from kit.cli.errors import UserError
from kit.generation.artefacts import check_askable, find_artefacts
from kit.generation.open import open_engine
from kit.generation.runtime import Room, Runtime
from kit.models import positions
from kit.models.base_check import check_before_training
from kit.models.positions import check_positions

_LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "rope_theta": 5e5}
_BY_LAYER = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}


@pytest.fixture
def older(monkeypatch):
    monkeypatch.setattr(positions, "version", lambda _: "4.57.6")


def folder_with(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "to_add"),
    [
        ({"rope_parameters": {"rope_theta": 1e6}}, '"rope_theta": 1000000.0 to its config.json'),
        ({"rope_parameters": _LLAMA3, "rope_theta": 5e5}, '"rope_scaling": {"rope_type": "llama3", "factor": 32.0} to'),
        ({"rope_parameters": _BY_LAYER}, '"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling"'),
        ({"text_config": {"rope_parameters": {"rope_theta": 1e6}}}, "to the text_config of its config.json"),
    ],
)
def test_what_an_older_transformers_misreads_is_refused_with_what_to_add(older, tmp_path, config, to_add):
    with pytest.raises(UserError) as refused:
        check_positions(folder_with(tmp_path, config), "base")
    assert to_add in str(refused.value)


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1e6},
        {"rope_parameters": _LLAMA3, "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 32.0}},
        {"rope_theta": 1e6},
        {},
    ],
)
def test_what_it_reads_rightly_is_not(older, tmp_path, config):
    check_positions(folder_with(tmp_path, config), "base")


def test_what_it_takes_by_default_is_not(older, tmp_path, monkeypatch):
    """The older one's defaults are made up here too."""
    monkeypatch.setattr(positions, "_default", lambda _, name: {"rope_theta": 1e4}.get(name))
    check_positions(folder_with(tmp_path, {"model_type": "llama", "rope_parameters": {"rope_theta": 1e4}}), "base")


def test_neither_training_nor_evaluation_goes_on_with_it(chain, monkeypatch, request):
    """The demo's base was saved by the transformers that is installed here."""
    if "rope_parameters" not in json.loads((chain / "base" / "config.json").read_text()):
        pytest.skip("the transformers here writes what the older reads")
    request.getfixturevalue("older")
    base = str(chain / "base")
    with pytest.raises(UserError, match="would misread its positions"):
        check_before_training(base)
    (artefact,) = find_artefacts([base])
    check_askable([artefact], served=base)
    with pytest.raises(UserError, match="would misread its positions"):
        check_askable([artefact])
    with (
        pytest.raises(UserError, match="would misread its positions"),
        open_engine(artefact, Runtime("transformers", "float32", "float32"), Room(100, 10, 1)),
    ):
        pass
