"""Several cards: a step is shared out among them, and stays the same step, however many there are."""

import os

import pytest

from kit import ranks
from kit.checkpointing.resuming import as_recorded
from kit.cli.errors import UserError
from kit.planning.gpus import card_named
from kit.planning.hardware import Machine, weakest
from kit.planning.plan import make_plan
from kit.planning.plan_report import print_plan
from kit.settings.knobs import Settings
from kit.settings.reading import read_settings
from kit.storage.run_folder import RunFolder
from tests.planning.test_plan import QWEN


def read(*options):
    settings, problems = read_settings([*map(str, options)], "")
    problems.raise_any()
    return settings


@pytest.fixture
def config(tmp_path):
    """A model's config.json in the shape of Qwen2.5-0.5B."""
    file = tmp_path / "config.json"
    file.write_text(
        '{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "hidden_size": 896, "intermediate_size": 4864, '
        '"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": true, '
        '"vocab_size": 151936}'
    )
    return file


@pytest.mark.parametrize(("card", "cards", "said"), [
    ("t4", 2, "2 cards share the 32 completions of a step: 16 each. A step takes about "),
    ("h100", 8, "for 8 times the cards: writing a token takes as long for 4 completions as for 32"),
])  # fmt: skip
def test_what_it_gains_is_said(config, capsys, card, cards, said):
    print_plan(read("--plan", "--gpu", card, "--gpus", cards, "--model", config))
    printed = capsys.readouterr().out
    assert f"{cards} x " in printed
    assert said in printed
    assert f"x {cards} cards = 32 completions" in printed


def test_each_card_holds_less_and_the_step_is_the_same():
    one, two = (make_plan(read("--plan", "--gpus", cards), card_named("t4"), QWEN["0.5B"]) for cards in (1, 2))
    assert one.settings.completions_per_step == two.settings.completions_per_step == 32
    assert two.settings.completions_per_card == 16
    assert two.peak_gib < one.peak_gib


@pytest.mark.parametrize(("options", "whole"), [((), 32), (("--num-generations", 12), 36), (("--batch-size", 6), 24)])
def test_groups_are_whole(options, whole):
    plan = make_plan(read("--plan", "--gpus", 2, *options), card_named("t4"), QWEN["0.5B"])
    assert plan.settings.completions_per_step == whole
    assert whole % plan.settings.num_generations == 0


def test_what_one_says_of_a_card_is_of_each():
    settings = read("--plan", "--gpus", 3, "--batch-size", 8, "--gradient-accumulation-steps", 2)
    assert make_plan(settings, card_named("t4"), QWEN["0.5B"]).settings.completions_per_step == 48
    with pytest.raises(UserError, match="on 3 cards is 12 completions a step"):
        read("--plan", "--gpus", 3, "--batch-size", 4, "--gradient-accumulation-steps", 1)


@pytest.mark.parametrize("cards", [1, 2, 4])
def test_a_run_of_two_cards_goes_on_and_is_repeated_on_others(tmp_path, cards):
    """With its 24 completions a step, by its folder or as a file of settings."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    recorded = Settings(per_device_train_batch_size=6, gradient_accumulation_steps=2, gpus=2).as_config()
    run.write({"settings": recorded})
    for options in (("--output-dir", run.path), ("--config", run.settings_file)):
        settings = as_recorded(read("--plan", "--gpus", cards, *options))
        assert make_plan(settings, card_named("t4"), QWEN["0.5B"]).settings.completions_per_step == 24


def test_cards_that_differ_do_what_the_weakest_can():
    new, old = Machine("new", (9, 0), 80, 10), Machine("old", (7, 5), 16, 14)
    assert weakest([new, old]).capability == (7, 5)
    assert weakest([new, old]).free_gib == 10


@pytest.mark.parametrize(("seen", "left"), [(None, "0"), ("", ""), ("3", "3"), ("2,3", "2")])
def test_one_process_takes_one_card(monkeypatch, seen, left):
    """transformers spreads a larger batch over all that it sees."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen or "")
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    ranks.join()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left
