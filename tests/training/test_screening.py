"""Screened questions: those of which the base gets some replies right and some wrong are trained on, and asked once."""

import json

from kit.settings.reading import read_settings
from kit.storage.run_folder import RunFolder, read_jsonl
from tests.conftest import run_script, short_training


def test_only_questions_with_spread_are_trained_on(chain, tmp_path):
    run = RunFolder(tmp_path)
    command = short_training(chain, run.path, "--max-steps", "3", "--screen", "4", "--save-steps", "1")
    said = run_script(*command).stdout
    tried = read_jsonl(run.screen_answers)
    kept = {line["question"] for line in tried if 0 < line["right"] < 4}
    assert len(kept) >= 6  # as many as three steps ask
    assert f"{len(kept)} are trained on" in said
    assert len(tried) > len(kept)
    assert {row["question"] for row in read_jsonl(run.samples_file)} <= kept
    assert len(json.loads(run.screen_file.read_text())["kept"]) == len(kept)

    (run.adapter / "adapter_model.safetensors").rename(tmp_path / "before")
    assert "screened" not in run_script(*command).stdout
    assert read_jsonl(run.screen_answers) == tried
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == (tmp_path / "before").read_bytes()


def test_one_reply_says_nothing():
    _, problems = read_settings(["--screen", "1"], "")
    assert problems.found == ["--screen 1: one reply is always right or always wrong, give 0 or 2 and more"]
