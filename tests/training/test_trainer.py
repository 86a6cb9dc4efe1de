"""What building TRL's trainer leaves behind, and what it does not."""

import os

import torch

from kit.settings.losses import LOSSES, loss_fields
from kit.training.trainer import build_trainer


class SaysItsPlace:
    """TRL's trainer on a card: it loads vLLM, which it tells its place among processes."""

    def __init__(self, **_):
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
        self.model = torch.nn.Linear(1, 1)

    def remove_callback(self, _):
        pass

    def _generate_and_score_completions(self, _):
        pass


def test_the_trainer_of_one_process_leaves_no_place_among_several(monkeypatch, tmp_path):
    """The warm start's would take it for one of several, and a checkpoint's random states could not be read again."""
    monkeypatch.setattr("trl.GRPOTrainer", SaysItsPlace)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("RANK", "3")
    build_trainer({"output_dir": str(tmp_path), "use_vllm": False, "bf16": False}, None, None, [], [], [])
    assert ("LOCAL_RANK" in os.environ, os.environ["RANK"]) == (False, "3")


def test_a_loss_is_the_same_on_a_card_and_without_one():
    """Unsloth has wishes of its own for three of them, which it leaves alone where the field is set."""
    for loss in LOSSES:
        wished = {"mask_truncated_completions", "epsilon_high"}
        fields = [loss_fields(loss, "none", on_card=on_card) for on_card in (True, False)]
        without = [{name: value for name, value in one.items() if name not in wished} for one in fields]
        assert without[0] == without[1]
    assert all(loss_fields("cispo", "none", on_card=on_card)["epsilon_high"] == 5.0 for on_card in (True, False))
