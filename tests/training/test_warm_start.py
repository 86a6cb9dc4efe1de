"""A warm start: decided by a look, made of the model's own replies, survives a kill, and GRPO begins where it ends."""

import json

import pytest
import torch
from safetensors.torch import load_file

from kit.cli.errors import UserError
from kit.cli.signals import StopRequest
from kit.prompts import format_reply, parse_reply
from kit.settings.reading import read_settings
from kit.storage.run_folder import RunFolder, read_jsonl
from kit.task.worked_example import read_worked_example
from kit.training import warm_start
from kit.training.warm_start import WarmStart, questions_for_enough_right
from tests.conftest import killed_once, run_script, short_training

ASKED = 96


def command(chain, run, *options):
    return short_training(chain, run, "--max-steps", "1", *options)


def decided(run):
    return json.loads(RunFolder(run).warm_start_file.read_text())


@pytest.fixture(scope="module")
def warm(chain):
    run = chain / "warm"
    return run, run_script(*command(chain, run, "--warm-start", ASKED, "--eval-questions", 60)).stdout


def test_more_is_in_format_after_it_and_no_text_but_its_own_is_learned(warm):
    run, _ = warm
    folder = RunFolder(run)
    replies = read_jsonl(folder.warm_start_replies)
    facts = folder.read()["warm_start"]
    assert (facts["asked"], facts["done"], len(replies)) == (ASKED, True, ASKED)
    assert facts["learned_from"] == facts["in_format"] == sum(parse_reply(line["reply"]).soft for line in replies) > 8
    base, after = (row for row in read_jsonl(folder.metrics_file) if row["step"] == 0)
    assert ("warm_start" in base, after["warm_start"]) == (False, True)
    assert after["heldout"]["format_rate"] > base["heldout"]["format_rate"] + 0.2
    assert "own replies" in folder.report_file.read_text()
    in_format = [sum(line["in_format"] for line in read_jsonl(folder.held_out / f"{name}.jsonl")) / 60
                 for name in ("base", "warm-start")]  # fmt: skip
    assert in_format == [base["heldout"]["format_rate"], after["heldout"]["format_rate"]]


def test_it_leaves_the_adapter_in_float32(warm):
    """In bfloat16, as TRL's supervised trainer casts it, most of GRPO's updates would round away."""
    run, _ = warm
    for folder in (RunFolder(run).warm_start, RunFolder(run).adapter):
        weights = load_file(folder / "adapter_model.safetensors")
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
        assert any((weight.bfloat16() != weight).any() for weight in weights.values())


def test_a_kl_term_compares_with_where_grpo_begins(warm):
    """TRL's frozen copy is made before the warm start; if it stayed so, the first KL would be far from 0."""
    run, _ = warm
    assert abs(RunFolder(run).steps()[0]["kl"]) < 1e-3


@pytest.mark.parametrize("moment", [pytest.param("warm_start.jsonl", marks=pytest.mark.slow), "warm_start.json"])
def test_killed_in_the_middle_it_ends_in_the_same_bits(warm, chain, moment):
    run, _ = warm
    again = chain / f"warm-killed-{moment}"
    arguments = command(chain, again, "--warm-start", ASKED, "--eval-questions", 60)
    killed_once((again / moment).exists, *arguments)
    assert not RunFolder(again).has_adapter
    run_script(*arguments)
    for name in ("warm_start", "adapter"):
        weights = [folder / name / "adapter_model.safetensors" for folder in (run, again)]
        assert weights[0].read_bytes() == weights[1].read_bytes(), name
    assert len(read_jsonl(RunFolder(again).warm_start_replies)) == ASKED
    assert [row["step"] for row in read_jsonl(RunFolder(again).metrics_file)] == [0, 0, 1]


def test_auto_begins_without_where_rewards_have_spread_and_the_form_is_known(tmp_path):
    """Looked at by itself: a base that knows the form is what a warm start leaves."""
    facts = {"look": {"groups": 4, "with_spread": 1.0, "format_rate": 0.75}}
    run = RunFolder(tmp_path)
    settings, _ = read_settings(["--warm-start", "auto"], "")
    assert not WarmStart(settings, run, [], ([], []), {}, StopRequest())._is_wanted(facts)
    assert decided(run.path)["done"] is False
    for share in ("with_spread", "format_rate"):
        poor = {"look": facts["look"] | {share: 0.25}}
        assert WarmStart(settings, run, [], ([], []), {}, StopRequest())._is_wanted(poor)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_auto_does_it_where_all_earn_the_same(chain, tmp_path, dtype):
    """In bfloat16 each trainer sets its own number type; a processor that only emulates it takes minutes."""
    (tmp_path / "mine.py").write_text(
        "def flat(completions, completion_ids, trainer_state, **kwargs):\n"
        "    return [trainer_state.global_step * 0.0 / len(ids) for ids in completion_ids]\n"
    )
    run, flat = tmp_path / "run", f"{tmp_path / 'mine.py'}:flat"
    options = ("--warm-start", "auto", "--rewards", flat, "--cpu-dtype", dtype)
    said = run_script(*command(chain, run, *options)).stdout
    assert "warm start: 0 of 4 groups have spread" in said
    assert decided(run)["done"] is True
    assert 1 <= decided(run)["passes"] <= 4


@pytest.mark.parametrize(("right", "asked"), [(0, 128), (3, 128), (10, 384), (23, 167), (24, 128), (90, 128)])
def test_auto_goes_on_asking_where_enough_right_replies_are_within_reach(right, asked):
    replies = [{"in_format": True, "strict": place < right} for place in range(128)]
    replies[-1] = {"in_format": False, "strict": True}  # right in its block, with text around it: not learned from
    assert questions_for_enough_right(replies) == asked


def test_auto_asks_for_as_many_replies_as_that_and_a_run_that_goes_on_for_the_same(tmp_path, monkeypatch):
    """The replies are made up: ten of the first 128 are right, and then one in ten."""
    made = [{"in_format": True, "strict": place < 10 or (place % 10 == 0 and place > 128)} for place in range(512)]
    asked = []

    def answer(engine, questions, *_):
        asked.append(len(questions))
        return made[: max(asked)]  # a file keeps what was answered before

    monkeypatch.setattr(warm_start, "replies_in_parts", answer)
    settings, _ = read_settings(["--warm-start", "auto"], "")
    warm = WarmStart(settings, RunFolder(tmp_path), [{}] * 600, ([], []), {}, StopRequest())
    for _ in ("at first", "again, with them all there"):
        assert len(warm._replies(None, [{}] * 600, "")) == 384
    assert asked == [128, 384, 128, 384]


def test_no_more_replies_are_promised_than_there_are_questions(tmp_path, monkeypatch, capsys):
    made = [{"in_format": True, "strict": place < 3} for place in range(20)]
    monkeypatch.setattr(warm_start, "replies_in_parts", lambda _, questions, *__: made[: len(questions)])
    settings, _ = read_settings(["--warm-start", "auto"], "")
    warm = WarmStart(settings, RunFolder(tmp_path), [{}] * 20, ([], []), {}, StopRequest())
    assert len(warm._replies(None, [{}] * 20, "")) == 20
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(warm, "_short_enough", lambda _: [{}] * 7)
    assert warm._material(None, None, pytest.fail) == ([], {})
    assert "it takes the replies to 8 questions at least, and there are 7" in capsys.readouterr().out
    assert decided(tmp_path) == {"done": False}


def test_too_few_in_format_are_not_learned_from(chain, tmp_path):
    said = run_script(*command(chain, tmp_path, "--warm-start", 3)).stdout
    assert "too few to learn from" in said
    assert decided(tmp_path) == {"asked": 3, "in_format": 0, "right": 0, "learned_from": 0, "done": False}


def test_an_example_of_ones_own(tmp_path):
    file = tmp_path / "example.yaml"
    file.write_text(json.dumps({"question": "1 + 1?", "reply": format_reply("1 + 1 = 2", "2")}))
    assert read_worked_example(str(file)) == ("1 + 1?", format_reply("1 + 1 = 2", "2"))
    for content, said in (("- 1", "two texts"), ("{question: a, reply: 2}", "two texts"), ("{", "cannot be read")):
        file.write_text(content)
        with pytest.raises(UserError, match=said):
            read_worked_example(str(file))
    file.write_text("question: a\nreply: The answer is 2.")
    with pytest.raises(UserError, match="its reply is not in format"):
        read_worked_example(str(file))


@pytest.mark.parametrize("wrong", ["maybe", "0", "-3", "2.5"])
def test_what_can_be_said(wrong):
    _, problems = read_settings(["--warm-start", wrong], "")
    assert problems.found == [f"--warm-start is {wrong}: choose from auto, off, or give a whole number from 1"]
