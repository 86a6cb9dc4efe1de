"""What a file may say beside the knobs: TRL's fields in their own types, and the names of other people's recipes."""

import pytest

from kit.planning.step_size import questions_asked, with_steps
from kit.settings.reading import read_settings


@pytest.fixture
def read(tmp_path):
    """Settings and problems of a file with this text."""

    def call(text, *argv):
        (tmp_path / "config.yaml").write_text(text)
        return read_settings(["--config", str(tmp_path / "config.yaml"), *argv], "")

    return call


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('run_name: "007"', "007"),
        ('hub_model_id: "1e5"', "1e5"),
        ("run_name: 7", "7"),
        ('num_iterations: "2"', 2),
        ("steps_per_generation: 2.0\nper_device_train_batch_size: 8", 2),
        ("weight_decay: 1e-2", 0.01),
        ("mask_truncated_completions: true", True),
        ("generation_kwargs: {min_new_tokens: 3}", {"min_new_tokens": 3}),
    ],
)
def test_a_field_has_its_own_type(read, text, value):
    settings, problems = read(text)
    assert problems.found == []
    (found,) = settings.further.values()
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps_per_generation: two", "steps_per_generation is 'two': give a whole number"),
        ("steps_per_generation: 2.5", "give a whole number"),
        ("num_iterations: true", "give a whole number"),
        ("weight_decay: .nan", "give a number"),
        ("weight_decay: [1]", "give a number"),
        ("mask_truncated_completions: maybe", "write true or false"),
        ("eval_strategy: steps", "--eval-every and --eval-questions"),
        ("auto_find_batch_size: true", "--plan"),
        ("warmup_ratio: 0.1\nmax_steps: 50", "use --warmup-steps, 0.1 of 50 steps is 5"),
        ("torch_dtype: bfloat16", "it follows from the card"),
        ("use_peft: false", "always trains a LoRA"),
        ("lora_r: 8\nlora_rank: 16", "lora_r and lora_rank, which mean the same"),
        ("max_steps: -1", "it must be 1 or more"),
        ("num_train_epochs: 0", "it must be greater than 0"),
        ("num_train_epochs: many", "give a number"),
        ("num_train_epochs: 1\nmax_steps: -1\nwarmup_ratio: 0.1", "that part of the steps that --plan names"),
        ("steps_per_generation: 8", "say per_device_train_batch_size too, or generation_batch_size"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_remedy(read, text, words):
    (problem,) = read(text)[1].found
    assert words in problem


def test_a_recipe_of_trl_or_open_r1_means_our_knobs(read):
    settings, problems = read(
        "model_name_or_path: m\ndataset_name: d/d\ndataset_config: es\ndataset_prompt_column: prompt\n"
        "reward_funcs: [correctness, soft_format]\nlora_r: 16\nreport_to: [none]\n"
        "use_peft: true\neval_strategy: no\ndo_eval: false\npush_to_hub: false\nvllm_mode: colocate\n"
    )
    assert problems.found == []
    assert (settings.model, settings.dataset, settings.dataset_config) == ("m", "d/d", "es")
    assert (settings.question_column, settings.rewards, settings.lora_rank) == ("prompt", "correctness,soft_format", 16)
    assert settings.further == {}


def test_epochs_become_steps(read, capsys):
    """4 questions a step: 8 completions in groups of 2; what does not fill a step is left out of a pass."""
    batch = "num_generations: 2\nper_device_train_batch_size: 4\ngradient_accumulation_steps: 2\n"
    settings, problems = read(f"{batch}num_train_epochs: 2\nmax_steps: -1\n")
    assert problems.found == []
    assert with_steps(settings, 11).max_steps == 4
    assert "2 over 11 questions: 4 steps" in capsys.readouterr().out
    assert with_steps(read(f"{batch}num_train_epochs: 2\nnum_iterations: 3")[0], 11).max_steps == 12
    assert questions_asked(read(f"{batch}max_steps: 7")[0]) == 28
    assert questions_asked(read(f"{batch}max_steps: 7\nnum_iterations: 3")[0]) == 12  # three batches, the last for one
    settings, _ = read(f"{batch}num_train_epochs: 2", "--max-steps", "7")
    assert with_steps(settings, 11).max_steps == 7
    assert "counts for nothing beside --max-steps 7" in capsys.readouterr().out


def test_a_system_prompt_is_a_text_or_a_file(read, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text("Piensa.\n<reasoning> </reasoning> <answer> </answer>\n")
    settings, _ = read("seed: 1", "--system-prompt", str(tmp_path / "prompt.txt"))
    assert settings.prompt() == settings.as_config()["system_prompt"] == (tmp_path / "prompt.txt").read_text().strip()
    assert capsys.readouterr().out == ""
    assert read("system_prompt: Be brief.")[0].prompt() == "Be brief."
    assert read("seed: 1")[0].prompt().startswith("Respond in the following format")
