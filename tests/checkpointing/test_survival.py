"""Training that is stopped, killed or starved, and goes on by the same command to the same adapter."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from kit.checkpointing.checkpoints import checkpoints_in, damage
from kit.storage.run_folder import RunFolder, read_jsonl
from tests.conftest import ROOT, run_script, short_training


def command(chain, output, *further):
    """The command of the chain's short run (3 steps), into another folder."""
    return [sys.executable, *map(str, short_training(chain, output, "--max-steps", "3", *further))]


def start(call):
    return subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(call, status=0):
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def wait_for(condition, process=None):
    while not condition():
        time.sleep(0.02)
        assert process is None or process.poll() is None, process.communicate()[0][-3000:]


def steps(run):
    return [row["step"] for row in run.steps()]


def adapter(path):
    return (path / "adapter" / "adapter_model.safetensors").read_bytes()


def test_stopped_moved_to_a_new_machine_and_continued_it_is_the_same_run(chain, tmp_path):
    """SIGTERM after the first step; the run folder is lost; the mirror brings it back; the adapter is the same bits."""
    run = RunFolder(tmp_path / "again")
    call = command(chain, run.path, "--mirror", tmp_path / "drive", "--save-steps", "2")
    process = start(call)
    wait_for(lambda: steps(run) == [1], process)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate()
    assert process.returncode == 143, printed
    stopped_at = int(re.search(r"stopped after step (\d)", printed)[1])
    assert stopped_at < 3
    shutil.rmtree(run.path)
    printed = finish(call)
    assert "restored from" in printed
    assert f"continuing {run.path} after step {stopped_at}" in printed
    assert steps(run) == [1, 2, 3]
    samples = [row["step"] for row in read_jsonl(run.samples_file)]
    assert samples == sorted(samples)
    assert [samples.count(step) for step in (1, 2, 3)] == [16, 16, 16]
    assert adapter(run.path) == adapter(chain / "short")
    assert "is finished, after step" in finish(call)


def test_own_rewards_on_own_columns_and_another_call_of_the_same_run(chain, tmp_path):
    """CSV with a column of its own, a checked answer, a function to be awaited; then the file moves, and is edited."""
    rows = [f"Tom has {n} pears and buys 2?,{n} + 2 = {n + 2} #### {n + 2},{n % 3}" for n in range(6)]
    (tmp_path / "data.csv").write_text("\n".join(["question,answer,level", *rows]))
    mine = "async def by_level(prompts, completions, question, answer, solution, level, **columns):\n" \
           "    assert [q.split()[2] for q in question] == [s.split()[0] for s in solution]\n" \
           "    assert [prompt[-1]['content'] for prompt in prompts] == list(question)\n" \
           "    return [int(a) + l / 10 for a, l in zip(answer, level)]\n"  # fmt: skip
    (tmp_path / "mine.py").write_text(mine)
    run = RunFolder(tmp_path / "run")

    def call(file, *further):
        return command(chain, run.path, "--dataset", tmp_path / "data.csv", "--max-steps", "1", "--rewards",
                       f"{file}:by_level,correctness", *further)  # fmt: skip

    finish(call(tmp_path / "mine.py"))
    for sample in read_jsonl(run.samples_file):
        number = int(sample["question"].split()[2])
        assert sample["gold"] == str(number + 2)
        assert sample["rewards"]["by_level"] == pytest.approx(number + 2 + number % 3 / 10)
    (tmp_path / "moved.py").write_text(mine)
    assert "is finished, after step" in finish(call(tmp_path / "moved.py"))
    (tmp_path / "moved.py").write_text(mine.replace("/ 10", "/ 5"))
    assert "the reward function by_level is another one" in finish(call(tmp_path / "moved.py"), status=2)


def test_a_run_that_moved_with_its_base_is_still_scored(chain, tmp_path):
    shutil.copytree(chain / "short", tmp_path / "elsewhere" / "short")
    shutil.copytree(chain / "base", tmp_path / "elsewhere" / "base")
    moved = tmp_path / "elsewhere" / "short"
    recorded = yaml.safe_load((moved / "run.yaml").read_text())
    recorded["settings"]["model"] = "/a/machine/that/is/gone/base"
    (moved / "run.yaml").write_text(yaml.safe_dump(recorded))
    config = json.loads((moved / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/a/machine/that/is/gone/base"
    (moved / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    run_script("merge_and_export.py", moved, "--check")
    scored = run_script("evaluate.py", moved / "adapter", "--dataset", chain / "data" / "heldout.jsonl", "--limit", "4")
    assert "4 questions" in scored.stdout


@pytest.mark.slow
def test_killed_where_a_batch_is_updated_from_twice_it_ends_in_the_same_bits(chain, tmp_path):
    recipe = yaml.safe_load((ROOT / "tests" / "short.yaml").read_text())
    recipe |= {"save_steps": 3, "num_iterations": 2}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    options = ("--config", tmp_path / "recipe.yaml", "--max-steps", 12)
    calls = [command(chain, run.path, *options) for run in (whole, broken)]
    finish(calls[0])
    process = start(calls[1])
    wait_for(lambda: steps(broken)[-1:] == [8], process)
    process.kill()
    process.wait()
    assert checkpoints_in(broken.checkpoints)[-1].name == "step-6"
    assert "after step 6" in finish(calls[1])
    assert steps(broken) == list(range(1, 13))
    assert adapter(broken.path) == adapter(whole.path)


# Six on each change; before a release KILLS=20 (make test-release).
TRAINING_KILLS = int(os.environ.get("KILLS", "6"))
FURTHER_KILLS = max(1, TRAINING_KILLS // 4)


@pytest.mark.slow
def test_killed_at_random_moments_it_is_the_same_run(chain, tmp_path):
    dice = random.Random(1)
    whole, broken = RunFolder(tmp_path / "a" / "run"), RunFolder(tmp_path / "b" / "run")
    further = ("--max-steps", "16", "--save-steps", "1")
    finish(command(chain, whole.path, *further))
    call = command(chain, broken.path, *further)
    done = 0
    for kill in range(TRAINING_KILLS):
        process = start(call)
        if kill % 3 == 2:  # inside a checkpoint
            partial = broken.checkpoints / ".partial"
            while not list(partial.glob("checkpoint-*/*")) and process.poll() is None:
                time.sleep(0.005)
        else:  # anywhere from the import to some steps on
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(dice.uniform(1, 40))
        process.kill()
        process.communicate()
        now = steps(broken)[-1:] or [0]
        assert now[0] >= done - 1  # a kill costs at most the step that was going on
        done = now[0]
        if broken.adapter.exists():
            break
    finish(call)
    assert steps(broken) == list(range(1, 17))
    samples = [row["step"] for row in read_jsonl(broken.samples_file)]
    assert all(samples.count(step) == 16 for step in range(1, 17))
    assert all(damage(checkpoint) is None for checkpoint in checkpoints_in(broken.checkpoints))
    assert adapter(broken.path) == adapter(whole.path)

    export = [sys.executable, "merge_and_export.py", None, "--gguf", "f16", "q4_k_m"]
    score = [sys.executable, "evaluate.py", None, "--dataset", str(chain / "data" / "heldout.jsonl"), "--limit", "60"]
    for line, span in ((export, 40), (score, 20)):
        finish([part or str(whole.path) for part in line])
        again = [part or str(broken.path) for part in line]
        for _ in range(FURTHER_KILLS):
            process = start(again)
            time.sleep(dice.uniform(2, span))
            process.kill()
            process.communicate()
            assert not broken.export_file.exists() or json.loads(broken.export_file.read_text())
        finish(again)
    assert not list(broken.path.glob("*.partial"))
    for name in ("merged/model.safetensors", "gguf/run.f16.gguf", "gguf/run.q4_k_m.gguf"):
        assert (broken.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    replies = [
        [line["reply"] for line in read_jsonl(run.path / "transcripts" / "q4_k_m.jsonl")] for run in (whole, broken)
    ]
    assert replies[0] == replies[1]


@pytest.mark.slow
def test_a_disk_that_fills_stops_the_run_with_a_sentence(chain, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        run = RunFolder(disk / "run")
        call = command(chain, run.path, "--save-steps", "1")
        printed = finish(call, status=1)
        assert "is full" in printed
        assert "is whole" in printed
        assert "Traceback" not in printed
        assert [damage(checkpoint) for checkpoint in checkpoints_in(run.checkpoints)] == [None]
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        finish(call)
        assert adapter(run.path) == adapter(chain / "short")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_reward_that_raises_leaves_the_last_checkpoint_whole(chain, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def moody(completions, trainer_state, **columns):\n"
        "    return [1.0 / (2 - trainer_state.global_step)] * len(completions)\n"
    )
    run = RunFolder(tmp_path / "run")
    call = command(chain, run.path, "--save-steps", "1", "--rewards", f"correctness,{tmp_path / 'mine.py'}:moody")
    printed = finish(call, status=2)
    assert "moody" in printed
    assert "the checkpoint of step 2 is whole" in printed
    assert "Traceback" not in printed
    assert damage(checkpoints_in(run.checkpoints)[-1]) is None
