"""Held-out scores: seen going wrong while the reward goes on, and the best step kept."""

import random
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import yaml
from safetensors.numpy import load_file

from kit.cli.errors import UserError
from kit.generation.engine import Completion
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder, append_jsonl, read_jsonl
from kit.task.held_out import held_out_count, set_aside, with_held_out
from kit.training.best_step import HeldOutHistory, clear_bests, points
from kit.training.held_out import HeldOut
from kit.training.run_log import RunLog
from tests.conftest import ROOT, killed_once, run_script, short_training

# A rate at which the tiny model forgets its sums within a few steps.
RUINED = ("--learning-rate", "0.05", "--max-steps", "6", "--eval-every", "2", "--eval-questions", "60")


def scores(run):
    return {row["step"]: row["heldout"] for row in read_jsonl(RunFolder(run).metrics_file) if "heldout" in row}


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_the_best_until_the_newest_checkpoint_stays(tmp_path):
    """A run that is killed goes on from there, and would keep it at its end."""
    run, settings = RunFolder(tmp_path), Settings(eval_every=20)
    for folder in (run.checkpoints / "step-50", run.best_adapter(40), run.best_adapter(60)):
        folder.mkdir(parents=True)
    looks = {40: "2" * 10 + "0" * 10, 60: "2" * 20}
    append_jsonl(run.metrics_file, *({"step": step, "heldout": {"right": right}} for step, right in looks.items()))
    held = HeldOut([{"question": "?", "answer": "1"}] * 20, settings, run, RunLog(run, settings))
    held._forget_old_bests()
    assert {folder.name for folder in run.best.iterdir()} == {"step-40", "step-60"}
    (run.checkpoints / "step-60").mkdir()
    held._forget_old_bests()
    assert {folder.name for folder in run.best.iterdir()} == {"step-60"}


@pytest.fixture(scope="module")
def ruined(chain):
    run = chain / "ruined"
    return run, run_script(*short_training(chain, run, *RUINED)).stdout


def test_a_run_that_makes_the_model_worse_says_so_and_keeps_its_best_step(ruined):
    run, said = ruined
    scored = scores(run)
    assert list(scored) == [0, 2, 4, 6]
    best = max(scored, key=lambda step: (points(scored[step]["right"]), step))
    assert best < 6
    record = RunFolder(run).read()["adapter"]
    assert (record["step"], record["better_than_last"] > record["worse_than_last"]) == (best, True)
    assert "adapter/ is the one of" in said
    alarms = [alarm["name"] for row in read_jsonl(RunFolder(run).metrics_file) for alarm in row.get("alarms", [])]
    assert "worse than the base" in alarms
    assert "worse than the base" in said
    assert "60 held-out questions" in RunFolder(run).report_file.read_text()
    assert not list(RunFolder(run).best.glob("step-*"))
    replies = read_jsonl(RunFolder(run).held_out / "step-6.jsonl")
    assert sum(row["flexible"] for row in replies) / 60 == scored[6]["flexible"]["accuracy"]
    assert sum(row["truncated"] for row in replies) / 60 == scored[6]["truncated_rate"]


def test_a_run_whose_best_step_is_the_base_is_not_exported(chain, tmp_path):
    run = RunFolder(shutil.copytree(chain / "short", tmp_path / "run", ignore=shutil.ignore_patterns("gguf", "merged")))
    run.write(run.read() | {"adapter": {"step": 0}})
    refused = run_script("merge_and_export.py", run.path, check=False)
    assert (refused.returncode, "nothing to export" in refused.stderr) == (2, True)


@pytest.mark.parametrize("warm", [False, True], ids=["the base", "the warm start"])
def test_the_best_may_be_what_grpo_began_with(tmp_path, monkeypatch, capsys, warm):
    """With a warm start that is an adapter like any other, and is exported; without one it changes nothing."""
    copy = RunFolder(tmp_path)
    rows = [{"step": step, "heldout": {"right": "0" * 40}} for step in ((0, 0, 6) if warm else (0, 6))]
    rows[-2]["heldout"]["right"] = "2" * 40
    append_jsonl(copy.metrics_file, *rows)
    (copy.best / "step-0").mkdir(parents=True)
    monkeypatch.setattr("kit.training.held_out.restore_adapter", lambda policy, folder: policy.append(folder.name))
    policy, questions = [], [{"question": "?", "answer": "1"}] * 40
    kept = HeldOut(questions, Settings(), copy, RunLog(copy, Settings())).take_best(policy, 6)
    assert (kept["step"], kept.get("warm_start", False), policy) == (0, warm, ["step-0"])
    assert f"of {'the warm start' if warm else 'the base'}" in capsys.readouterr().out


@pytest.mark.parametrize(("last", "kept"), [("0" * 32 + "2" * 8, 3), ("0" * 26 + "2" * 14, 6)])
def test_a_last_step_that_is_worse_than_the_base_is_not_kept(tmp_path, monkeypatch, last, kept):
    """A real run: 18, 11 and 5 of 100 right in any form; the difference between the last two alone was within noise."""
    copy = RunFolder(tmp_path)
    base, middle = "1" * 20 + "0" * 20, "0" * 29 + "2" * 11
    rows = [{"step": step, "heldout": {"right": right}} for step, right in ((0, base), (3, middle), (6, last))]
    append_jsonl(copy.metrics_file, *rows)
    (copy.best / "step-3").mkdir(parents=True)
    monkeypatch.setattr("kit.training.held_out.restore_adapter", lambda *_: None)
    questions = [{"question": "?", "answer": "1"}] * 40
    assert HeldOut(questions, Settings(), copy, RunLog(copy, Settings())).take_best(None, 6)["step"] == kept


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([(0, "2" * 7), (6, "0" * 7 + "2" * 2)], 6),  # to lose all that was learned takes more than a doubt
        ([(0, ""), (3, "2" * 7), (6, "0" * 7 + "2" * 2)], 3),
        ([(0, ""), (3, "2" * 9), (6, "0" * 9 + "1" * 17)], 6),  # fewer points, and more right answers
        ([(0, "2" * 7 + "0" * 93), (3, "2" * 7), (6, "0" * 7 + "2" * 2)], 3),  # of other questions before
    ],
    ids=["the base", "a step", "the other direction", "other questions"],
)
def test_how_much_worse_the_last_step_must_be(tmp_path, rows, kept):
    run = RunFolder(tmp_path)
    padded = [(step, right if len(right) > 50 else right.ljust(40, "0")) for step, right in rows]
    append_jsonl(run.metrics_file, *({"step": step, "heldout": {"right": right}} for step, right in padded))
    better = HeldOutHistory.of(run).better_than(6, [step for step, _ in rows if step != 6])
    assert (better.step if better else 6) == kept


def test_what_a_kill_left_of_a_best_step_is_cleared(tmp_path):
    run = RunFolder(tmp_path)
    for name in ("step-20", "step-40", "step-60.partial"):
        (run.best / name).mkdir(parents=True)
    clear_bests(run, after=20)
    assert [folder.name for folder in run.best.iterdir()] == ["step-20"]


def test_a_warm_start_that_lost_sums_is_no_better_than_a_last_step_that_did(tmp_path):
    """Both are worse than the base: then the one with more right answers is kept, the last."""
    copy = RunFolder(tmp_path)
    base, warm, last = "1" * 20 + "0" * 20, "0" * 36 + "2" * 4, "0" * 34 + "2" * 6
    append_jsonl(
        copy.metrics_file, *({"step": s, "heldout": {"right": r}} for s, r in ((0, base), (0, warm), (6, last)))
    )
    (copy.best / "step-0").mkdir(parents=True)
    questions = [{"question": "?", "answer": "1"}] * 40
    assert HeldOut(questions, Settings(), copy, RunLog(copy, Settings())).take_best(None, 6) == {"step": 6}


def test_the_last_step_is_kept_on_request(ruined, tmp_path):
    run, _ = ruined
    copy = RunFolder(tmp_path)
    copy.metrics_file.write_bytes(RunFolder(run).metrics_file.read_bytes())
    (copy.best / "step-0").mkdir(parents=True)
    settings = Settings(keep="last")
    assert HeldOut([{"question": "?", "answer": "1"}], settings, copy, RunLog(copy, settings)).take_best(None, 6) == {
        "step": 6
    }


def test_a_killed_run_comes_to_the_same_best_step(ruined, chain):
    run, _ = ruined
    again = chain / "ruined-killed"
    arguments = short_training(chain, again, *RUINED, "--save-steps", "1")
    killed_once((again / "checkpoints" / "step-3").exists, *arguments)
    assert not RunFolder(again).has_adapter
    run_script(*arguments)
    right = [{step: score["right"] for step, score in scores(folder).items()} for folder in (run, again)]
    assert right[0] == right[1]
    assert same(weights(run / "adapter"), weights(again / "adapter"))


def test_looking_changes_nothing(chain):
    runs = []
    for every in (0, 1):
        runs.append(chain / f"looked-{every}")
        run_script(
            *short_training(
                chain, runs[-1], "--max-steps", "2", "--eval-every", every, "--eval-questions", "20", "--keep", "last"
            )
        )
    assert not scores(runs[0])
    assert list(scores(runs[1])) == [0, 1, 2]
    assert same(*(weights(run / "adapter") for run in runs))


def test_a_run_that_stands_still_ends(chain):
    run = chain / "patient"
    said = run_script(*short_training(chain, run, *RUINED, "--patience", "1", "--eval-every", "1")).stdout
    assert max(scores(run)) < 6
    assert RunFolder(run).has_adapter
    assert "Next:" in said


@pytest.mark.parametrize(
    ("there", "options", "count"),
    [(7473, {}, 100), (500, {}, 50), (199, {}, 0), (30, {"eval_questions": 5}, 5), (500, {"eval_questions": 0}, 0)],
)
def test_how_many_are_set_aside(there, options, count):
    settings = Settings(**options)
    settings.given = frozenset(options)
    assert held_out_count(settings, there) == count


def test_that_none_are_set_aside_is_said_with_how_some_would_be(capsys):
    with_held_out(Settings(), 150)
    assert "none of 150 questions is set aside (below 200)" in (said := capsys.readouterr().out)
    assert "--eval-questions 30 sets some" in said


def test_some_are_left_to_train_on():
    settings = Settings(eval_questions=30)
    settings.given = frozenset({"eval_questions"})
    with pytest.raises(UserError, match=r"--eval-questions 30 of the 30 questions .* leaves none"):
        held_out_count(settings, 30)


def test_nothing_that_is_set_aside_is_trained_on():
    rows = [{"question": f"{number % 40}?", "answer": "1"} for number in range(100)]
    random.Random(1).shuffle(rows)
    trained, apart = set_aside(rows, 10, seed=1)
    assert 8 <= len(apart) <= 10  # each stands two or three times
    assert not {row["question"] for row in trained} & {row["question"] for row in apart}
    assert sorted(map(str, trained + apart)) == sorted(map(str, rows))
    assert set_aside(rows, 10, seed=1) == (trained, apart)
    assert set_aside(rows, 10, seed=2) != (trained, apart)


def test_a_file_of_one_question_many_times_is_trained_on(capsys):
    """Rows whose question is the same text, and what is asked stands in another column."""
    rows = [{"question": "Solve it.", "answer": str(number)} for number in range(300)]
    assert set_aside(rows, 30, seed=1) == (rows, [])
    assert "30 questions are wanted aside and 0 are" in capsys.readouterr().out


def test_an_engine_that_fails_does_not_end_the_training(tmp_path, capsys):
    run = RunFolder(tmp_path)
    settings = Settings(eval_every=1)
    held_out = HeldOut([{"question": "1 + 1?", "answer": "2"}], settings, run, RunLog(run, settings))

    def broken():
        raise RuntimeError("no kernel image is available")

    held_out.engine = broken
    held_out._measure(0, None, None)
    assert "could not be answered (no kernel image is available): training goes on" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "rings"), [("so it is", True), ("so it is.", False)])
def test_a_base_whose_replies_do_not_end_is_said_before_anything_is_trained(tmp_path, monkeypatch, text, rings):
    run, settings = RunFolder(tmp_path), Settings(eval_every=1, max_completion_length=64)
    held_out = HeldOut([{"question": "1 + 1?", "answer": "2"}], settings, run, RunLog(run, settings))
    completion = Completion(text, 64, "stop" if text.endswith(".") else "length")
    engine = SimpleNamespace(generate=lambda *_: [{0: completion}])
    held_out.engine = lambda: engine
    monkeypatch.setattr("kit.training.held_out.answering", lambda _: nullcontext())
    monkeypatch.setattr("kit.training.held_out.save_weights", lambda *_: None)
    for name in ("base", "warm-start"):
        held_out._measure(0, None, SimpleNamespace(chat_template="{{ messages[-1].content }}"), name)
    alarms = [[alarm["name"] for alarm in row.get("alarms", [])] for row in read_jsonl(run.metrics_file)]
    assert alarms == [["no room"] if rings else [], []]


@pytest.mark.slow
def test_a_run_from_before_there_were_held_out_questions_goes_on_with_all_of_them(chain):
    run = chain / "older"
    run_script(*short_training(chain, run, "--max-steps", "2", "--save-steps", "1", "--eval-questions", "0"))
    folder = RunFolder(run)
    record = folder.read()
    for name in ("eval_every", "eval_questions", "keep", "patience"):
        record["settings"].pop(name)
    folder.write(record)
    config = yaml.safe_load((ROOT / "tests" / "short.yaml").read_text())
    config.pop("eval_questions")
    (chain / "older.yaml").write_text(yaml.safe_dump(config))
    said = run_script(*short_training(chain, run, "--config", chain / "older.yaml", "--max-steps", "3")).stdout
    assert "after step 2" in said
    assert folder.read()["settings"]["eval_questions"] == 0
