"""Checkpoints are whole or recognised as damaged; signals and refusals, without training anything."""

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import train_lora
from kit.checkpointing.adapter_weights import check_weights
from kit.checkpointing.checkpoints import checkpoints_in, damage, newest_whole, step_of
from kit.checkpointing.failures import RunStopped, explained
from kit.checkpointing.mirror import Mirror
from kit.checkpointing.resuming import check_run_folder, cut_logs, mirror_of, open_run_folder, where_to_start
from kit.checkpointing.saving import checkpointing
from kit.cli import errors
from kit.cli.errors import Problems, UserError
from kit.cli.machine_failures import is_out_of_memory
from kit.cli.signals import StopRequest
from kit.settings.knobs import Settings
from kit.storage import run_lock
from kit.storage.run_folder import RunFolder, read_jsonl
from kit.training.best_step import clear_bests
from tests.checkpointing.made_checkpoints import made_run, save, truncate
from tests.conftest import ROOT, run_script, writing


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "run")


def empty(file):
    file.write_bytes(b"")


def flip_a_byte(file):
    content = bytearray(file.read_bytes())
    content[123] ^= 1
    file.write_bytes(content)


def remove(file):
    file.unlink()


FILES = ["adapter_model.safetensors", "optimizer.pt", "ref/adapter_model.safetensors"]


@pytest.mark.parametrize(
    ("harm", "name"),
    [(harm, name) for harm in (truncate, empty, flip_a_byte, remove) for name in FILES]
    + [(harm, "manifest.json") for harm in (truncate, empty, remove)],
)
def test_a_damaged_checkpoint_is_recognised_and_the_one_before_used(run, harm, name):
    harm(run.checkpoints / "step-6" / name)
    said = []
    newest = newest_whole(run.checkpoints, said.append)
    assert newest.name == "step-4"
    assert damage(newest) is None
    assert len(said) == 1
    assert "step 6 is damaged" in said[0]
    save(run.checkpoints, 6, keep=2)  # the run goes on: the good ones are kept, not the damaged one
    assert [step_of(path) for path in checkpoints_in(run.checkpoints)] == [4, 6]


@pytest.mark.parametrize("name", ["optimizer.pt", "manifest.json"])
def test_what_cannot_be_read_now_is_left_for_later(run, tmp_path, name):
    mirror = Mirror(run, tmp_path / "drive", say=pytest.fail)
    mirror.finish()
    for checkpoints in (run.checkpoints, mirror.copy.checkpoints):
        file = checkpoints / "step-6" / name
        file.unlink()
        file.symlink_to(file)  # an error that is no missing file, as of a Drive that went away
    with pytest.raises(UserError, match=r"step-6 cannot be read .* run the same command again"):
        newest_whole(run.checkpoints, pytest.fail)
    assert (run.checkpoints / "step-6").exists()
    shutil.rmtree(run.path)
    with pytest.raises(UserError, match="step-6 cannot be read"):
        mirror.restore()
    assert (mirror.copy.checkpoints / "step-6").exists()
    assert not run.exists()


def test_what_has_no_final_name_is_no_checkpoint(run):
    shutil.copytree(run.checkpoints / "step-6", run.checkpoints / ".partial" / "checkpoint-8")
    assert newest_whole(run.checkpoints, print).name == "step-6"


def test_only_the_last_are_kept(run):
    save(run.checkpoints, 8, keep=2)
    assert [step_of(path) for path in checkpoints_in(run.checkpoints)] == [6, 8]


def test_logs_are_cut_to_the_checkpoint(run):
    with run.metrics_file.open("a") as log:
        log.write('{"step": 8, "cut sh')
    run.held_out.mkdir()
    for name in ("base", "warm-start", "step-4", "step-8", "step-notes"):
        (run.held_out / f"{name}.jsonl").write_text("")
    cut_logs(run, 6)
    assert {path.stem for path in run.held_out.iterdir()} == {"base", "warm-start", "step-4", "step-notes"}
    assert [row["step"] for row in read_jsonl(run.metrics_file)] == [1, 2, 3, 4, 5, 6]
    assert run.metrics_file.read_text().count("\n") == 6


def test_overwriting_empties_a_folder_that_is_a_link(run, tmp_path):
    (tmp_path / "linked").symlink_to(run.path)
    opened, _ = open_run_folder(Settings(output_dir=str(tmp_path / "linked"), overwrite=True))
    assert opened.path.is_symlink()
    assert [path.name for path in run.path.glob("[!.]*")] == ["checkpoints"]
    assert not list(run.checkpoints.iterdir())


def test_what_another_program_writes_is_left_alone(run):
    other = writing(run.path)
    finishing = run_script("train_lora.py", "--output-dir", run.path, "--finish", check=False)
    assert (finishing.returncode, "is written now by -c" in finishing.stderr) == (2, True)
    with pytest.raises(UserError, match=f"is written now by -c, process {other.pid}: wait for its end, or stop it"):
        open_run_folder(Settings(output_dir=str(run.path), overwrite=True))
    assert run.exists()
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    open_run_folder(Settings(output_dir=str(run.path), overwrite=True))  # what was killed holds nothing
    assert not run.exists()


def test_what_cannot_be_written_to_is_said(run):
    with pytest.raises(UserError, match=r"run.yaml cannot be written to \(File exists\)"):
        run_lock.take(run.settings_file)


def test_a_disk_that_went_away_is_no_run_that_is_missing(run, tmp_path, monkeypatch):
    stat = Path.stat

    def gone(path, **options):
        if path.is_relative_to(tmp_path):
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return stat(path, **options)

    alone = Settings(output_dir=str(run.path))
    settings = dataclasses.replace(alone, mirror=str(tmp_path / "drive"))
    monkeypatch.setattr(Path, "stat", gone)
    for question in (
        run.exists, lambda: run.has_adapter, lambda: mirror_of(run, settings),
        lambda: check_run_folder(settings, None), lambda: train_lora.finish_now(alone, Problems()),
    ):  # fmt: skip
        with pytest.raises(UserError, match=r"cannot be read or written \(Transport endpoint is not connected\): see"):
            question()


def test_a_disk_that_goes_away_while_training_is_said(run, monkeypatch):
    def gone(*_):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", str(run.path))

    monkeypatch.setattr(shutil, "disk_usage", gone)
    anew = Settings(overwrite=True)
    with pytest.raises(RunStopped, match="and the same command without --overwrite goes"), explained(run, anew):
        gone()
    for script in (gone, lambda: Path(os.devnull, "x").stat()):  # the latter is none of these
        with pytest.raises(SystemExit if script is gone else NotADirectoryError):
            errors.run_script(script)


@pytest.mark.parametrize(("step", "kept"), [(6, "best/step-6"), (4, "best/step-4"), (10, "adapter-step-10")])
def test_more_steps_cost_a_finished_run_nothing(run, step, kept):
    (run.adapter).mkdir()
    (run.adapter / "adapter_model.safetensors").write_text("trained")
    run.write({"settings": {"max_steps": 10}, "adapter": {"step": step}})
    open_run_folder(Settings(output_dir=str(run.path), max_steps=20))
    assert not run.has_adapter
    clear_bests(run, after=where_to_start(run)[1])
    assert (run.path / kept / "adapter_model.safetensors").read_text() == "trained"


def test_a_file_that_a_full_disk_cut_off_does_not_make_the_folder_another_ones(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.settings_file.with_name("run.yaml.partial").write_text("settings:")
    check_run_folder(Settings(output_dir=str(run.path)), None)
    (run.path / "photo.jpg").write_text("")
    with pytest.raises(UserError, match="holds something that is no run"):
        check_run_folder(Settings(output_dir=str(run.path)), None)


def test_a_run_that_is_called_as_its_base_is_not_its_base(tmp_path):
    for name, model, found in (
        ("Qwen2.5-0.5B", "some/Qwen2.5-0.5B", "some/Qwen2.5-0.5B"),
        ("run", "gone/there/base", "base"),
    ):
        run = RunFolder(tmp_path / name)
        run.path.mkdir()
        run.write({"settings": {"model": model}})
        (tmp_path / "base").mkdir(exist_ok=True)
        (tmp_path / "base" / "config.json").write_text("{}")
        assert run.base_model() == (found if "/" in found else str(tmp_path / found))


LISTENING = """
import signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # a background job, as the tests may be, starts with SIGINT ignored
from kit.cli.machine_failures import is_out_of_memory
from kit.cli.signals import StopRequest
stop = StopRequest()
with stop.listening():
    print("ready", flush=True)
    for _ in range(int(sys.argv[1])):
        time.sleep(0.05)
        if stop.signal: break
    open(sys.argv[3], "w").close()
    time.sleep(float(sys.argv[2]))
sys.exit(stop.exit_status)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_is_noted_and_a_second_one_leaves_at_once(tmp_path, number, status, times):
    noted, after = tmp_path / "noted", "0" if times == 1 else "100"
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING, "9999", after, str(noted)], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.readline()
    process.send_signal(number)
    while not noted.exists():
        assert process.poll() is None or noted.exists()
        time.sleep(0.01)
    if times == 2:
        process.send_signal(number)
    assert process.wait(timeout=60) == status


def test_a_checkpoint_is_due_when_the_minutes_have_passed(run, monkeypatch):
    monkeypatch.setattr("kit.checkpointing.saving.check_weights", lambda *_: None)
    saving = checkpointing(run, Settings(save_steps=50, save_minutes=10), StopRequest(), None, None)
    saving.trainer = SimpleNamespace(_step=3, model=None)
    arguments = SimpleNamespace(steps_per_generation=1, num_iterations=1)
    due = []
    for minutes in (9, 2):
        saving.saved_at -= 60 * minutes
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        saving.on_step_end(arguments, SimpleNamespace(global_step=3, max_steps=100), control)
        due.append(control.should_save)
    assert due == [False, True]


def test_memory_that_runs_out_names_the_setting(run):
    def fail():
        with explained(run, Settings(per_device_train_batch_size=8, gradient_accumulation_steps=4)):
            raise MemoryError

    with pytest.raises(RunStopped) as stopped:
        fail()
    assert "lower --batch-size from 8 to 4 and raise --gradient-accumulation-steps from 4 to 8" in str(stopped.value)
    anew = Settings(overwrite=True)
    with pytest.raises(RunStopped, match="the same command without --overwrite goes on from"), explained(run, anew):
        raise MemoryError
    assert "the checkpoint of step 6 is whole" in str(stopped.value)


def test_a_processor_that_has_no_more_memory_says_so():
    import torch

    with pytest.raises(RuntimeError) as full:
        torch.empty(10**15)
    assert is_out_of_memory(full.value)


def test_before_the_first_checkpoint_the_reason_is_all_that_is_said(tmp_path):
    with pytest.raises(UserError) as refused, explained(RunFolder(tmp_path), Settings()):
        raise UserError("vLLM could not be loaded")
    assert refused.value.problems == ("vLLM could not be loaded",)


def test_weights_that_are_no_numbers_are_not_saved():
    import torch

    model = torch.nn.Linear(4, 4)
    check_weights(model, 7)
    with torch.no_grad():
        model.weight[1, 2] = float("nan")
    with pytest.raises(UserError, match="after step 7 the adapter holds NaN"):
        check_weights(model, 7)
    model.requires_grad_(False)  # the frozen base is not what is saved
    check_weights(model, 7)
