"""Stop now and keep what there is; go further than was planned; score and export what a checkpoint holds."""

import os
import shutil

import pytest

from kit.checkpointing.checkpoints import checkpoints_in, step_of
from kit.checkpointing.resuming import is_trained, open_run_folder
from kit.cli.errors import UserError
from kit.settings.knobs import BATCH_KNOBS, Settings
from kit.storage.run_folder import RunFolder, append_jsonl, read_jsonl
from kit.training.finishing import finish_early
from kit.training.training import begun
from tests.checkpointing.test_checkpoints import save
from tests.conftest import killed_once, run_script, short_training


def command(chain, run, *options):
    """A run whose learning rate does not depend on how many steps it has."""
    return short_training(chain, run, "--lr-scheduler-type", "constant", "--save-steps", "1", *options)


def adapter(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(chain):
    """A run of four steps that nobody stopped."""
    run_script(*command(chain, chain / "whole", "--max-steps", "4"))
    return RunFolder(chain / "whole")


def test_killed_finished_early_and_continued_it_is_the_run_that_nobody_stopped(chain, whole):
    part = RunFolder(chain / "part")
    arguments = command(chain, part.path, "--max-steps", "3")
    killed_once((part.checkpoints / "step-2").exists, *arguments)
    assert not part.has_adapter
    said = run_script("train_lora.py", "--output-dir", part.path, "--finish").stdout
    step = step_of(checkpoints_in(part.checkpoints)[-1])
    assert f"adapter/ is that of step {step}" in said
    assert adapter(part.adapter) == adapter(part.checkpoints / f"step-{step}")
    assert not list(part.adapter.glob("*.pt"))
    assert part.steps()[-1]["step"] == step
    held_out = chain / "data" / "heldout.jsonl"
    scored = run_script(
        "evaluate.py", part.checkpoints / f"step-{step}", "--dataset", held_out, "--limit", "5",
        "--output-dir", chain / "scored",
    )  # fmt: skip
    assert "5 questions" in scored.stdout
    run_script("merge_and_export.py", part.path, "--gguf", "q8_0")
    again = run_script(*arguments).stdout  # as a notebook does whose cells are run from top to bottom
    assert f"is finished, after step {step}. The command that trained it, with --max-steps above 3, goes on" in again
    assert "goes on to step 4" in run_script(*command(chain, part.path, "--max-steps", "4")).stdout
    assert adapter(part.adapter) == adapter(whole.adapter)
    assert [row["step"] for row in part.steps()] == [1, 2, 3, 4]


def test_a_finished_run_goes_further_from_its_last_step(chain, whole):
    run = RunFolder(chain / "further")

    def call(steps, check=True):
        return run_script(*command(chain, run.path, "--save-steps", "50", "--max-steps", steps), check=check)

    call("2")
    trained = adapter(run.adapter)
    assert "is finished, after step 2" in call("2").stdout
    assert adapter(run.adapter) == trained
    shutil.rmtree(run.adapter)  # a kill between the last checkpoint and the adapter
    call("2")
    assert adapter(run.adapter) == trained
    assert "after step 2" in call("4").stdout
    assert run.read()["settings"]["max_steps"] == 4
    assert [row["step"] for row in run.steps()] == [1, 2, 3, 4]
    assert adapter(run.adapter) == adapter(whole.adapter)
    fewer = call("3", check=False)
    assert (fewer.returncode, "max_steps 4 → 3" in fewer.stderr) == (2, True)


def test_a_run_goes_on_with_its_steps_split_otherwise(chain, whole):
    """As after running out of memory: half the rows a pass. transformers 4 would take those of the checkpoint."""
    run = RunFolder(chain / "split")
    run_script(*command(chain, run.path, "--max-steps", "2"))
    rows, passes = (run.read()["settings"][name] for name in BATCH_KNOBS)
    split = ("--batch-size", rows // 2, "--gradient-accumulation-steps", passes * 2)
    run_script(*command(chain, run.path, "--max-steps", "4", *split))
    asked = [[(line["step"], line["question"]) for line in read_jsonl(of.samples_file)] for of in (whole, run)]
    assert asked[0] == asked[1]


def test_a_second_pass_over_the_questions_goes_on_in_its_own_order(chain):
    """Eight questions, two a step: four steps are a pass."""
    whole, part = RunFolder(chain / "two-passes"), RunFolder(chain / "two-passes-in-parts")
    few = ("--split", "train[:8]")
    run_script(*command(chain, whole.path, "--max-steps", "7", *few))
    for steps in ("5", "7"):
        run_script(*command(chain, part.path, "--max-steps", steps, *few))
    asked = [[(line["step"], line["question"]) for line in read_jsonl(run.samples_file)] for run in (whole, part)]
    assert asked[0] == asked[1]
    assert adapter(part.adapter) == adapter(whole.adapter)


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    run.write({"settings": {"max_steps": 9}})
    return run


def test_the_newest_whole_checkpoint_or_the_one_that_is_named(run):
    for step in (2, 4, 6):
        save(run.checkpoints, step)
    os.truncate(run.checkpoints / "step-6" / "adapter_model.safetensors", 100)
    assert finish_early(run, 2) == (2, None)
    assert adapter(run.adapter) == adapter(run.checkpoints / "step-2")
    with pytest.raises(UserError, match=r"no whole checkpoint of step 6: name one of those that are there \(2, 4, 6\)"):
        finish_early(run, 6)
    assert finish_early(run) == (4, None)
    assert adapter(run.adapter) == adapter(run.checkpoints / "step-4")
    assert is_trained(Settings(output_dir=str(run.path), max_steps=9))  # the same command does not undo it
    assert not is_trained(Settings(output_dir=str(run.path), max_steps=10))


def test_without_a_checkpoint_there_is_nothing_to_finish(run):
    with pytest.raises(UserError, match="has no checkpoint that could be its adapter"):
        finish_early(run)
    with pytest.raises(UserError, match="is no run folder"):
        finish_early(RunFolder(run.path / "elsewhere"))


@pytest.mark.parametrize(
    ("options", "newest", "taken"),
    [({}, 18, 4), ({"keep": "last"}, 18, 6), ({}, 25, 6)],
    ids=["it fell apart", "the last is wanted", "within noise"],
)
def test_a_run_that_fell_apart_gives_the_step_before(run, options, newest, taken):
    """27 of 100 held-out answers were right, then 18, and somebody stopped it (a real run)."""
    run.write({"settings": {"max_steps": 9, **options}})
    for step in (4, 6, 8):
        save(run.checkpoints, step)
    shutil.copytree(run.checkpoints / "step-4", run.best / "step-4")
    rows = [{"step": 4, "heldout": {"right": "2" * 27 + "0" * 73}}]
    rows += [{"step": 6, "heldout": {"right": "0" * 14 + "2" * newest + "0" * (86 - newest)}}]
    rows += [{"step": 8, "heldout": {"right": "2" * 100}}]  # after the newest checkpoint that is whole
    append_jsonl(run.metrics_file, *rows)
    os.truncate(run.checkpoints / "step-8" / "adapter_model.safetensors", 100)
    reached, better = finish_early(run)
    assert reached == 6
    assert run.read()["adapter"]["step"] == (better.step if better else reached) == taken
    assert adapter(run.adapter) == adapter(run.checkpoints / f"step-{taken}")
    if taken == 4:
        with pytest.raises(UserError, match="with the adapter of step 4, its best: --finish --keep last takes"):
            finish_early(run)
        assert finish_early(run, keep="last") == (6, None)
    assert finish_early(run, 6) == (6, None)


def test_a_run_that_ended_by_itself_keeps_an_adapter_that_is_newer_than_its_checkpoints(run):
    for step in (4, 6):
        save(run.checkpoints, step)
    shutil.copytree(run.checkpoints / "step-4", run.adapter)
    run.write(run.read() | {"adapter": {"step": 9}})
    for keep in ("", "last"):
        with pytest.raises(UserError, match=r"finished, with the adapter of step 9.*--finish --step 6 takes instead"):
            finish_early(run, keep=keep)
    assert finish_early(run, 6) == (6, None)
    assert finish_early(run) == (6, None)


def test_more_steps_for_a_finished_run_do_not_cost_it_its_best_adapter(run):
    for step in (4, 6):
        save(run.checkpoints, step)
    best = adapter(run.checkpoints / "step-4")
    shutil.copytree(run.checkpoints / "step-4", run.adapter)
    shutil.rmtree(run.checkpoints / "step-4")
    looks = {4: "2" * 27 + "0" * 73, 6: "0" * 14 + "2" * 18 + "0" * 68}
    append_jsonl(run.metrics_file, *({"step": step, "heldout": {"right": right}} for step, right in looks.items()))
    run.write({"settings": {"max_steps": 6}, "adapter": {"step": 4, "better_than_last": 14, "worse_than_last": 5}})
    open_run_folder(Settings(output_dir=str(run.path), max_steps=12))
    begun(run, {"settings": {"max_steps": 12}})
    assert not run.has_adapter
    reached, better = finish_early(run)
    assert (reached, better.step, adapter(run.adapter)) == (6, 4, best)


def test_the_last_is_taken_on_request_and_where_nobody_knows_how_it_went_on(run):
    for step in (4, 6):
        save(run.checkpoints, step)
    shutil.copytree(run.checkpoints / "step-4", run.best / "step-4")
    looks = [{"step": 4, "heldout": {"right": "2" * 27}}, {"step": 5, "heldout": {"right": "0" * 27}}]
    append_jsonl(run.metrics_file, *looks)
    assert finish_early(run) == (6, None)
    append_jsonl(run.metrics_file, {"step": 6})
    assert finish_early(run, keep="last") == (6, None)
    _, better = finish_early(run)
    assert better
    assert better.step == 4
