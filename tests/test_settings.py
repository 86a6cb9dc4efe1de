"""Command line over file over defaults, and every problem at once."""

import pytest

from kit.errors import UserError
from kit.settings import Settings, read_settings


def test_command_line_over_file_over_defaults(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("max_steps: 7\nlora_rank: 8\n")
    settings = read_settings(["--config", str(config), "--max-steps", "9"], "")
    assert (settings.max_steps, settings.lora_rank, settings.seed) == (9, 8, Settings().seed)


def test_a_run_yaml_is_a_config(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("settings:\n  max_steps: 7\nversions:\n  torch: 1\n")
    assert read_settings(["--config", str(config)], "").max_steps == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--num-generations", "1"], "give 2 or more"),
        (["--lora-rank", "-4"], "--lora-rank is -4"),
        (["--batch-size", "6", "--gradient-accumulation-steps", "1", "--num-generations", "4"], "make the product 8"),
        (["--gpu-memory-utilization", "1.5"], "between 0 and 1"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_remedy(arguments, words):
    with pytest.raises(UserError, match=words):
        read_settings(arguments, "")


def test_all_problems_come_at_once():
    with pytest.raises(UserError) as refusal:
        read_settings(["--lora-rank", "0", "--max-steps", "0", "--num-generations", "1"], "")
    assert len(refusal.value.problems) == 3
