"""One run by several processes: the same steps as by one, written down once, and ended by whatever ends one of them.

Processes of torchrun on this machine's processor, with gloo: what cards, NCCL and several machines add is not seen.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from kit.checkpointing.checkpoints import checkpoints_in, step_of
from kit.storage.run_folder import RunFolder, read_jsonl
from tests.conftest import ROOT, short_training

SCRIPT = "tests/training/one_of_several.py"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


def launched(count, *arguments, script=SCRIPT, launcher=(), cwd=ROOT, **variables):
    """torchrun with ``count`` processes of a script, in a session of its own, and its output in one pipe."""
    command = [*TORCHRUN, *(launcher or ("--standalone", "--nproc_per_node", count)), ROOT / script, *arguments]
    if count == 1:
        command = [sys.executable, ROOT / script, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    return subprocess.Popen(
        list(map(str, command)), cwd=cwd, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def ended(count, *arguments, **options):
    """(exit status, output) of ``launched``."""
    process = launched(count, *arguments, **options)
    said = process.communicate(timeout=900)[0]
    return process.returncode, said


def training(chain, run, *options):
    """The arguments of a short run; a step is 16 completions, unless ``options`` say otherwise."""
    return short_training(chain, run, "--max-steps", "3", *options)[1:]


def share(rows, accumulation=1, group=8):
    return ["--batch-size", rows, "--gradient-accumulation-steps", accumulation, "--num-generations", group]


def trained(count, *arguments, **options):
    status, said = ended(count, *arguments, **options)
    assert status == 0, said[-5000:]
    return said


def is_near(run, other, relative):
    """Are the adapters of two runs nearly the same, and not nothing?"""
    one, two = (load_file(RunFolder(folder).adapter / "adapter_model.safetensors") for folder in (run, other))
    difference = sum(float(((one[name] - two[name]) ** 2).sum()) for name in one if "lora_B" in name) ** 0.5
    length = sum(float((one[name] ** 2).sum()) for name in one if "lora_B" in name) ** 0.5
    return length > 0 and difference <= relative * length


@pytest.fixture(scope="module")
def alone(chain):
    """A run by one process, whose completions are fixed."""
    run = chain / "alone"
    trained(1, *training(chain, run, *share(16)), COMPLETIONS="fixed")
    return RunFolder(run)


def test_two_processes_make_the_steps_of_one_and_write_them_down_once(chain, alone, tmp_path):
    trained(
        2, *training(chain, tmp_path / "two", *share(8), "--save-steps", "2"), COMPLETIONS="fixed", HASHES=str(tmp_path)
    )
    two = RunFolder(tmp_path / "two")
    assert is_near(two.path, alone.path, 1e-4)
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()  # the same adapter in both
    assert [row["step"] for row in two.steps()] == [1, 2, 3]
    for mine, theirs in zip(two.steps(), alone.steps(), strict=True):
        for name in ("reward", "format_rate", "correct_rate", "completion_length"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4), name
    samples = [
        [(row["step"], row["question"], row["reply"]) for row in read_jsonl(run.samples_file)] for run in (two, alone)
    ]
    assert samples[0] == samples[1]  # all sixteen of each step, in TRL's order
    assert two.read()["settings"]["gpus"] == 2
    assert [step_of(folder) for folder in checkpoints_in(two.checkpoints)] == [2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("split", [share(4, 2), share(8, 1, group=16)], ids=["accumulated", "a group over both"])
def test_however_a_step_is_split(chain, tmp_path, alone, split):
    one = alone.path
    if split[-1] == 16:
        one = tmp_path / "one"
        trained(1, *training(chain, one, *share(16, 1, group=16)), COMPLETIONS="fixed")
    trained(2, *training(chain, tmp_path / "two", *split), COMPLETIONS="fixed")
    assert is_near(tmp_path / "two", one, 1e-4)


@pytest.mark.slow
def test_warm_start_and_held_out_scores_are_made_once(chain, tmp_path):
    """With completions that are really drawn: all answer, and learn from the same."""
    run = RunFolder(tmp_path / "run")
    options = ("--warm-start", 96, "--eval-questions", 20, "--eval-every", 2, "--keep", "last", *share(8))
    trained(2, *training(chain, run.path, *options), HASHES=str(tmp_path))
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text()
    assert json.loads(run.warm_start_file.read_text())["done"] is True
    rows = read_jsonl(run.metrics_file)
    assert [row["step"] for row in rows] == [0, 0, 1, 2, 3]
    assert [bool(row.get("heldout")) for row in rows] == [True, True, False, True, True]


def until(condition, process, seconds=400):
    """Wait for it while the process runs."""
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition(), process.communicate()[0][-4000:]


def workers(process):
    """The launcher's processes, by rank."""
    import psutil

    found = [child for child in psutil.Process(process.pid).children() if SCRIPT in " ".join(child.cmdline())]
    return {int(child.environ()["RANK"]): child.pid for child in found}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_all_and_the_same_command_goes_on(chain, tmp_path, alone, rank):
    run = RunFolder(tmp_path / "run")
    arguments = training(chain, run.path, *share(8), "--save-steps", "1")
    process = launched(2, *arguments, COMPLETIONS="fixed")
    until(lambda: checkpoints_in(run.checkpoints), process)
    os.kill(workers(process)[rank], signal.SIGKILL)
    began = time.monotonic()
    said = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert time.monotonic() - began < 80  # and not as long as a collective operation waits
    assert not run.has_adapter, said
    trained(2, *arguments, COMPLETIONS="fixed")
    assert is_near(run.path, alone.path, 1e-4)
    assert [row["step"] for row in run.steps()] == [1, 2, 3]


@pytest.mark.slow
def test_killed_while_it_saves_and_continued_by_one_process(chain, tmp_path, alone):
    run = RunFolder(tmp_path / "run")
    two = training(chain, run.path, *share(8), "--save-steps", "1")
    status, _ = ended(2, *two, COMPLETIONS="fixed", ENDS_IN="0:2")
    assert status != 0
    assert [step_of(folder) for folder in checkpoints_in(run.checkpoints)] == [1]
    said = trained(1, *training(chain, run.path, *share(16)), COMPLETIONS="fixed")
    assert "so far by 2 processes, from now on by 1" in said
    assert is_near(run.path, alone.path, 1e-4)


@pytest.mark.slow
def test_begun_by_one_and_continued_by_two(chain, tmp_path):
    run = RunFolder(tmp_path / "run")
    trained(1, *training(chain, run.path, *share(16), "--save-steps", "2"), COMPLETIONS="fixed")
    trained(2, *training(chain, run.path, *share(8)), "--max-steps", 4, COMPLETIONS="fixed")
    assert [row["step"] for row in run.steps()] == [1, 2, 3, 4]


@pytest.mark.slow
def test_patience_of_the_first_process_ends_the_run_of_all(chain, tmp_path):
    """It alone knows the held-out scores; with rewards that pay nothing no score rises."""
    (tmp_path / "mine.py").write_text("def flat(completions, **kwargs):\n    return [0.0] * len(completions)\n")
    run = RunFolder(tmp_path / "run")
    arguments = training(chain, run.path, *share(8), "--max-steps", 9, "--rewards", f"{tmp_path / 'mine.py'}:flat")
    trained(2, *arguments, "--patience", 1, "--eval-every", 1, "--eval-questions", 4, "--save-steps", 50)
    assert run.has_adapter
    assert run.steps()[-1]["step"] < 9
    assert step_of(checkpoints_in(run.checkpoints)[-1]) == run.steps()[-1]["step"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGTERM, "launcher"), (signal.SIGINT, "all"), (signal.SIGTERM, "one")]
)
def test_asked_to_stop_it_saves_a_checkpoint(chain, tmp_path, number, to):
    """``all``: as Ctrl-C in a terminal, which goes to the launcher and its processes; ``one``: to rank 1 alone."""
    run = RunFolder(tmp_path / "run")
    process = launched(2, *training(chain, run.path, *share(8)), "--max-steps", 200)
    until(lambda: run.metrics_file.exists() and run.steps(), process)
    if to == "all":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if to == "launcher" else workers(process)[1], number)
    process.communicate(timeout=120)
    assert process.returncode != 0
    (checkpoint,) = checkpoints_in(run.checkpoints)
    assert step_of(checkpoint) == run.steps()[-1]["step"]
    assert {file.name for file in checkpoint.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


@pytest.mark.slow
def test_one_that_is_asked_to_stop_in_the_warm_start_stops_all(chain, tmp_path):
    """Its supervised steps average gradients too: one that left them alone would leave the others waiting."""
    run = RunFolder(tmp_path / "run")
    arguments = training(chain, run.path, "--warm-start", 96, *share(8))
    process = launched(2, *arguments)
    next(line for line in process.stdout if "warm start, pass 1: 1/" in line)
    os.kill(workers(process)[1], signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert not run.steps()
    trained(2, *arguments)
    assert [row["step"] for row in run.steps()] == [1, 2, 3]


@pytest.mark.slow
def test_a_reward_that_fails_in_one_process_ends_all_with_one_sentence(chain, tmp_path):
    options = ("--rewards", f"{ROOT / SCRIPT}:fails", "--save-steps", "1", *share(8))
    began = time.monotonic()
    status, said = ended(2, *training(chain, tmp_path / "run", *options), COMPLETIONS="fixed", FAILS_IN="1:2")
    assert status != 0
    assert said.count("it has had enough") == 1, said
    assert "error: process 1 of 2: " in said
    assert "the checkpoint of step 1 is whole" in said
    assert time.monotonic() - began < 300


def machine(number, port):
    return (
        "--nnodes", "2", "--node_rank", number, "--nproc_per_node", "1", "--master_addr", "127.0.0.1",
        "--master_port", port,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_two_machines(chain, tmp_path, shared):
    """On loopback; a folder is not shared where each has its own of that name."""
    folders = [tmp_path, tmp_path] if shared else [tmp_path / "one", tmp_path / "two"]
    arguments = training(chain, "run", "--config", ROOT / "tests/short.yaml", *share(8))
    for folder in folders:
        folder.mkdir(exist_ok=True)
    port = 20_000 + os.getpid() % 20_000
    both = [
        launched(2, *arguments, launcher=machine(number, port), cwd=folder, COMPLETIONS="fixed")
        for number, folder in enumerate(folders)
    ]
    said = [process.communicate(timeout=900)[0] for process in both]
    if shared:
        assert [process.returncode for process in both] == [0, 0], said
        assert [row["step"] for row in RunFolder(tmp_path / "run").steps()] == [1, 2, 3]
        return
    assert all(process.returncode for process in both)
    assert "".join(said).count("is not seen by process 1 of 2: name a folder that all machines share") == 1, said


@pytest.mark.parametrize(
    ("options", "variables", "says"),
    [
        (["--num-generations", "8"], {}, "3 cards cannot share 32 completions a step evenly: take 1, 2, 4, 8, 16, 32"),
        ([], {"ACCELERATE_USE_FSDP": "true"}, "accelerate is configured for FSDP"),
        (["--gpus", "4"], {}, "--gpus 4 is for --plan"),
    ],
)
def test_what_cannot_be_is_refused_by_the_first_process(chain, tmp_path, options, variables, says):
    known = ("--model", chain / "base", "--dataset", chain / "data" / "train.jsonl", "--output-dir", tmp_path / "run")
    status, said = ended(3, *known, *options, script="train_lora.py", **variables)
    assert status != 0
    assert len(re.findall("^error: ", said, re.MULTILINE)) == 1, said
    assert says in said
    assert not (tmp_path / "run").exists()


def test_processes_that_were_started_differently_are_refused(chain, tmp_path):
    """Two machines, two people: another seed in each."""
    starter = tmp_path / "start.py"
    starter.write_text(
        "import os, runpy, sys\n"
        f"sys.argv = ['train_lora.py', *sys.argv[1:], '--seed', os.environ['RANK']]\n"
        f"runpy.run_path({str(ROOT / 'train_lora.py')!r}, run_name='__main__')\n"
    )
    status, said = ended(2, *training(chain, tmp_path / "run", *share(8)), script=starter)
    assert status != 0
    assert said.count("the processes of this run were not started alike (seed)") == 1, said


@pytest.mark.parametrize(
    ("script", "options"), [("merge_and_export.py", []), ("evaluate.py", []), ("train_lora.py", ["--finish"])]
)
def test_what_one_process_does_refuses_a_launcher(chain, script, options):
    path = ["--output-dir", chain / "short"] if options else [chain / "short"]
    status, said = ended(2, *options, *path, script=script)
    assert status != 0
    assert said.count(f"error: {' '.join([script, *options])} is for one process, and a launcher started 2") == 1, said


def test_a_launcher_that_would_start_one_process_is_refused(chain, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    done = subprocess.run(
        [*command, ROOT / "train_lora.py", *map(str, training(chain, tmp_path / "run"))], capture_output=True,
        text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert "accelerate launch --cpu --num_processes 2 starts one process" in done.stderr
    assert not Path(tmp_path / "run").exists()
