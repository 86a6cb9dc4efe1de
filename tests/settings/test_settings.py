"""Command line over file over defaults, and every problem at once."""

import pytest

from kit.cli.errors import UserError
from kit.settings.knobs import Settings
from kit.settings.reading import read_settings
from kit.settings.trainer_fields import trainer_fields
from rewards import choose_rewards


def write(tmp_path, text):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    return str(config)


def read(*argv):
    settings, problems = read_settings(argv, "")
    assert problems.found == []
    return settings


def problems_of(*argv):
    return read_settings(argv, "")[1].found


def test_command_line_over_file_over_defaults(tmp_path):
    config = write(tmp_path, "max_steps: 7\nlora_rank: 8\n")
    settings = read("--config", config, "--max-steps", "9")
    assert (settings.max_steps, settings.lora_rank, settings.seed) == (9, 8, Settings().seed)


def test_a_path_in_the_home_folder_is_one_where_no_shell_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = write(tmp_path, "output_dir: ~/runs/x\nrewards: correctness,~/r.py:f\n")
    settings = read("--config", config, "--dataset=~/my.jsonl")
    assert settings.output_dir == f"{tmp_path}/runs/x"
    (tmp_path / "r.py").write_text("def f(completions, **columns):\n    return [1.0] * len(completions)\n")
    assert [reward.__name__ for reward in choose_rewards(settings.rewards)[0]] == ["correctness", "f"]
    assert settings.dataset == f"{tmp_path}/my.jsonl"
    with pytest.raises(UserError, match="in WSL it is /mnt/c/Users/me/runs"):
        raise UserError(*problems_of("--output-dir", "C:\\Users\\me\\runs"))
    with pytest.raises(UserError, match=r"settings from a file are --config recipes/x\.yaml"):
        read_settings(["recipes/x.yaml"], "")


@pytest.mark.parametrize("prompt", ["prompts/my.txt", "~/my-prompt.md", "/content/drive/MyDrive/p.txt", "my p.md"])
def test_a_prompt_that_names_a_file_which_is_not_there_is_no_prompt(prompt):
    assert problems_of("--system-prompt", prompt)[0].endswith(
        "is no file: name one that is there, or write the text itself"
    )
    for text in ("Be brief.", "<think>...</think><answer>...</answer>", "Sí/No", "Name a file, such as notes.md"):
        assert problems_of("--system-prompt", text) == []


def test_what_is_not_set_is_said_in_the_help_as_it_would_be_written(capsys):
    with pytest.raises(SystemExit):
        read_settings(["--help"], "")
    said = " ".join(capsys.readouterr().out.split())
    assert "0 is never (default: 0)" in said
    assert "(default: none)" in said  # a text that is empty
    assert "(default: off)" in said


def test_what_run_yaml_records_is_a_config_for_the_same_settings(tmp_path):
    import yaml

    settings = read("--config", write(tmp_path, "max_steps: 7\nweight_decay: 0.1\n"), "--overwrite")
    recorded = yaml.safe_dump({"settings": settings.as_config(), "versions": {"torch": "1"}})
    settings.overwrite = False  # the one that is not recorded
    assert read("--config", write(tmp_path, recorded)) == settings


def test_a_step_of_a_run_yaml_stays_one_where_a_pass_is_made_smaller(tmp_path):
    record = write(tmp_path, "settings:\n  per_device_train_batch_size: 16\n  gradient_accumulation_steps: 8\n")
    for given, split in (("--batch-size", (8, 16)), ("--gradient-accumulation-steps", (16, 8))):
        settings = read("--config", record, given, "8")
        assert (settings.per_device_train_batch_size, settings.gradient_accumulation_steps) == split
    (problem,) = problems_of("--config", record, "--batch-size", "9")
    assert "--batch-size 9 does not divide the 128 completions" in problem
    empty = write(tmp_path, "settings:\n  per_device_train_batch_size:\n  gradient_accumulation_steps: auto\n")
    assert len(problems_of("--config", empty, "--batch-size", "8")) == 2


def test_a_file_may_set_any_further_field_of_grpo_config(tmp_path):
    settings = read("--config", write(tmp_path, "epsilon: 0.3\nweight_decay: 1e-2\n"))
    assert settings.further == {"epsilon": 0.3, "weight_decay": 0.01}


@pytest.mark.parametrize(("text", "meant"), [("false", "none"), ("true", "group"), ("batch", "batch")])
def test_a_loss_as_the_recipes_of_trl_name_it(tmp_path, text, meant):
    settings = read("--config", write(tmp_path, f"loss_type: dr_grpo\nscale_rewards: {text}\n"))
    assert (settings.loss, settings.scale_rewards, settings.further) == ("dr_grpo", meant, {})


def test_people_write_small_rates_as_1e_5(tmp_path):
    assert read("--config", write(tmp_path, "learning_rate: 1e-5\n")).learning_rate == 1e-5


def test_the_trainers_fields_are_the_installed_ones():
    assert {"loss_type", "num_generations", "weight_decay"} <= trainer_fields().keys()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--num-generations", "1"], "is 1: it must be 2 or more (GRPO compares"),
        (["--lora-rank", "-4"], "--lora-rank is -4: it must be 1 or more"),
        (["--lora-rank=-4"], "--lora-rank is -4: it must be 1 or more"),
        (["--max-steps", "2.5"], "no whole number"),
        (["--learning-rate", "fast"], "no number: give one such as 3e-05"),
        (["--learning-rate", "nan"], "greater than 0"),
        (["--learning-rate", "0"], "greater than 0"),
        (["--loss", "gpro"], "--loss is gpro: choose from dapo, grpo, dr_grpo"),
        (["--vllm", "maybe"], "choose from auto, off, require"),
        (["--gpu-memory-utilization", "1.5"], "below 1.0"),
        (["--seed", "5000000000"], "below 4294967296"),
        (["--batch-size", "6", "--gradient-accumulation-steps", "1", "--num-generations", "4"], "make the product 8"),
        (["--config", "nowhere.yaml"], "nowhere.yaml cannot be read"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(argv, words):
    (problem,) = problems_of(*argv)
    assert words in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_step: 7", "there is no setting 'max_step', did you mean max_steps?"),
        ("los_type: grpo", "did you mean loss_type?"),
        ("max_steps: [", "is no YAML"),
        ("- max_steps", "NAME: VALUE"),
        ("load_in_4bit: 3", "write true or false"),
        ("max_steps: many", "no whole number"),
        ("hub_token: hf_secret", "HF_TOKEN"),
        ("trust_remote_code: true", "runs no code"),
        ("bf16: true", "follows from the card"),
    ],
)
def test_a_wrong_file_is_named_with_its_remedy(tmp_path, text, words):
    (problem,) = problems_of("--config", write(tmp_path, text))
    assert words in problem
    assert "hf_secret" not in problem


def test_all_problems_come_at_once(tmp_path):
    config = write(tmp_path, "max_step: 7\nbeta: -1\n")
    assert len(problems_of("--config", config, "--lora-rank", "0", "--max-steps", "0", "--num-generations", "1")) == 5


def test_unknown_options_are_named_together_with_the_nearest():
    with pytest.raises(UserError) as refusal:
        read_settings(["--max-step", "7", "--sed", "1"], "")
    assert refusal.value.problems == (
        "there is no option --max-step, did you mean --max-steps?",
        "there is no option --sed, did you mean --seed?",
    )


def test_a_run_yaml_given_back_does_not_delete_its_run():
    settings, _ = read_settings(["--overwrite"], "")
    assert settings.overwrite
    assert "overwrite" not in settings.as_config()
