"""--mirror: copies on another disk, from which a new machine goes on; and disks that go away. Nothing is trained."""

import dataclasses
import errno
import os
import shutil
import subprocess

import pytest

import train_lora
from kit.checkpointing.checkpoints import checkpoints_in, damage, newest_whole
from kit.checkpointing.mirror import Mirror
from kit.checkpointing.resuming import check_run_folder, mirror_of, open_run_folder
from kit.cli.errors import Problems, UserError
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder, read_jsonl
from tests.checkpointing.made_checkpoints import made_run, save, truncate


@pytest.fixture
def run(tmp_path):
    return made_run(tmp_path / "run")


def test_a_mirror_holds_what_a_new_machine_needs(run, tmp_path):
    mirror = Mirror(run, tmp_path / "drive", say=pytest.fail)
    mirror.update()
    save(run.checkpoints, 8, keep=2)
    mirror.finish()
    assert [path.name for path in checkpoints_in(mirror.copy.checkpoints)] == ["step-6", "step-8"]
    shutil.rmtree(run.path)
    assert mirror.restore()
    assert run.read() == {"settings": {}}
    assert newest_whole(run.checkpoints, pytest.fail).name == "step-8"
    assert len(read_jsonl(run.metrics_file)) == 7
    assert not mirror.restore()  # never over a run that is there


def test_the_best_step_and_the_adapter_come_back_and_go_as_in_the_run(run, tmp_path):
    shutil.copytree(run.checkpoints / "step-4", run.best_adapter(4))
    shutil.copytree(run.checkpoints / "step-6", run.adapter)
    held = _files(run.best) | _files(run.adapter)
    mirror = Mirror(run, tmp_path / "drive", say=pytest.fail)
    mirror.finish()
    shutil.rmtree(run.path)
    assert mirror.restore()
    assert held
    assert held == _files(run.best) | _files(run.adapter)
    shutil.rmtree(run.adapter)  # the run goes further
    shutil.rmtree(run.best_adapter(4))
    mirror.finish()
    assert not mirror.copy.adapter.exists()
    assert not list(mirror.copy.best.iterdir())


def test_what_comes_before_the_first_step_is_mirrored_too(run, tmp_path):
    shutil.copytree(run.checkpoints / "step-4", run.warm_start)
    run.held_out.mkdir()
    before = [run.warm_start_replies, run.warm_start_file, run.screen_answers, run.screen_file]
    for file in (*before, run.held_out / "base.jsonl", run.held_out / "step-9.jsonl"):
        file.write_text(f"{file.name}\n")
    mirror = Mirror(run, tmp_path / "drive", say=pytest.fail)
    mirror.finish()
    (run.held_out / "step-9.jsonl").unlink()  # the run went back to an earlier step
    (run.held_out / "base.jsonl").write_text("other replies\n")
    for step in (2, 4):  # only the newest comes back
        shutil.rmtree(run.checkpoints / f"step-{step}", ignore_errors=True)
    mirror.finish()
    held = {file.relative_to(run.path): content for file, content in _files(run.path).items()}
    shutil.rmtree(run.path)
    assert mirror.restore()
    assert {file.relative_to(run.path): content for file, content in _files(run.path).items()} == held


def test_a_copy_that_is_further_than_the_run_is_not_replaced(run, tmp_path):
    settings = Settings(output_dir=str(run.path), mirror=str(tmp_path / "drive"))
    mirror_of(run, settings).finish()
    shutil.rmtree(run.checkpoints / "step-6")
    held = _files(tmp_path / "drive")
    for call in (open_run_folder, lambda settings: train_lora.finish_now(settings, Problems())):
        with pytest.raises(UserError, match=r"copy .* is at step 6 and .* at step 4: move the latter away"):
            call(settings)
    shutil.copytree(run.checkpoints / "step-4", run.checkpoints / "step-6")
    truncate(run.checkpoints / "step-6" / "optimizer.pt")  # a full disk: the copy has the only whole one
    with pytest.raises(UserError, match=r"copy .* is at step 6 and .* at step 4"):
        open_run_folder(settings)
    assert _files(tmp_path / "drive") == held
    shutil.move(run.path, tmp_path / "away")
    open_run_folder(settings)
    assert newest_whole(run.checkpoints, pytest.fail).name == "step-6"


def test_a_finished_run_needs_none_of_its_checkpoints(run, tmp_path):
    run.write({"settings": {"max_steps": 6}, "adapter": {"step": 6}})
    shutil.copytree(run.checkpoints / "step-6", run.adapter)
    settings = Settings(output_dir=str(run.path), mirror=str(tmp_path / "drive"), max_steps=6)
    mirror_of(run, settings).finish()
    shutil.rmtree(run.checkpoints)  # for room
    open_run_folder(settings)
    with pytest.raises(UserError, match="move the latter away"):
        open_run_folder(dataclasses.replace(settings, max_steps=12))


def test_the_best_of_step_0_is_that_of_the_warm_start_once_there_is_one(run, tmp_path):
    mirror = Mirror(run, tmp_path / "drive", say=pytest.fail)
    shutil.copytree(run.checkpoints / "step-4", run.best_adapter(0))  # the base's
    mirror.finish()
    shutil.rmtree(run.best_adapter(0))
    shutil.copytree(run.checkpoints / "step-6", run.best_adapter(0))
    mirror.finish()
    assert list(_files(mirror.copy.best).values()) == list(_files(run.best).values())


def _files(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_restore_that_was_cut_off_is_done_again(run, tmp_path):
    shutil.copytree(run.checkpoints / "step-4", run.best_adapter(4))
    for file in (run.warm_start_file, run.screen_file, run.samples_file):
        file.write_text("{}\n")
    mirror = Mirror(run, tmp_path / "drive", say=pytest.fail)
    mirror.finish()
    shutil.rmtree(run.path)
    assert mirror.restore()
    run.settings_file.unlink()  # it comes last
    settings = Settings(output_dir=str(run.path), loss="dapo", scale_rewards="group")  # as runs without a record had
    with pytest.raises(UserError, match="holds something that is no run"):
        check_run_folder(settings, None)
    check_run_folder(dataclasses.replace(settings, mirror=str(tmp_path / "drive")), None)
    assert mirror.restore()


def test_a_mirror_on_a_disk_that_is_not_there_is_refused(run, tmp_path):
    settings = Settings(output_dir=str(run.path), mirror=str(tmp_path / "drive" / "MyDrive" / "onecard"))
    with pytest.raises(UserError, match="MyDrive is not there"):
        mirror_of(run, settings)
    (tmp_path / "drive" / "MyDrive").mkdir(parents=True)
    assert mirror_of(run, settings)
    (tmp_path / "drive" / "file").touch()
    for place in ("file", "file/onecard"):
        with pytest.raises(UserError, match="file is a file: name a folder"):
            mirror_of(run, dataclasses.replace(settings, mirror=str(tmp_path / "drive" / place)))


def test_a_drive_that_is_unmounted_while_training_gets_no_copies_on_the_machines_own_disk(run, tmp_path):
    drive, said = tmp_path / "drive", []
    (drive / "MyDrive").mkdir(parents=True)
    mirror = Mirror(run, drive / "MyDrive" / "onecard", said.append)
    (drive / "MyDrive").rmdir()
    mirror.finish()
    assert "is not up to date" in said[-1]
    assert not any(drive.iterdir())
    (drive / "MyDrive").mkdir()
    mirror.finish()
    assert mirror.copy.exists()


def test_nor_where_the_mirror_is_the_mount_itself(run, tmp_path):
    drive, said = tmp_path / "drive", []
    drive.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(drive)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    mirror = Mirror(run, drive, said.append)
    mirror.finish()
    assert mirror.copy.exists()
    subprocess.run(["umount", "-l", str(drive)], check=True)
    mirror.finish()
    assert "its disk is not mounted any more" in said[0]
    assert not any(drive.iterdir())
    subprocess.run(mount, check=True)
    mirror.finish()
    assert mirror.copy.exists()
    subprocess.run(["umount", "-l", str(drive)], check=True)


def test_where_the_mirrors_copy_stays_overwrite_empties_nothing(run, tmp_path, monkeypatch):
    settings = Settings(output_dir=str(run.path), mirror=str(tmp_path / "mirror"), overwrite=True)
    mirror_of(run, settings).finish()

    def refuses(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(shutil, "rmtree", refuses)
    with pytest.raises(UserError, match=r"--overwrite cannot remove .*Read-only file system"):
        open_run_folder(settings)
    assert run.exists()


def test_what_is_finished_early_is_in_the_mirror_too_and_can_begin_there(run, tmp_path, monkeypatch):
    for name in ("write_report", "print_next_commands"):
        monkeypatch.setattr(train_lora, name, lambda _: None)
    run.write({"settings": {"max_steps": 9}})
    Mirror(run, tmp_path / "drive", say=pytest.fail).finish()
    shutil.rmtree(run.path)
    train_lora.finish_now(Settings(output_dir=str(run.path), mirror=str(tmp_path / "drive")), Problems())
    assert run.read()["adapter"] == {"step": 6}
    copy = RunFolder(tmp_path / "drive" / "run")
    assert copy.has_adapter
    assert copy.read() == run.read()


def test_a_damaged_copy_is_mended_and_not_restored(run, tmp_path):
    mirror = Mirror(run, tmp_path / "drive", say=print)
    mirror.finish()
    truncate(mirror.copy.checkpoints / "step-6" / "optimizer.pt")
    mirror.finish()
    assert damage(mirror.copy.checkpoints / "step-6") is None
    truncate(mirror.copy.checkpoints / "step-6" / "optimizer.pt")
    shutil.rmtree(run.path)
    mirror.restore()
    assert [path.name for path in checkpoints_in(run.checkpoints)] == ["step-4"]
    assert (mirror.copy.checkpoints / "step-6").exists()  # somebody may still mend it


def test_a_mirror_that_fails_is_said_and_tried_again(run, tmp_path):
    said = []
    blocked = tmp_path / "drive"
    blocked.write_text("not a folder")
    mirror = Mirror(run, blocked, say=said.append)
    mirror.update()
    mirror.finish()
    assert len(said) == 1 + 3 + 1  # in the background, three times at the end, and what to do
    assert "copy" in said[-1]
    blocked.unlink()
    mirror.finish()
    assert mirror.copy.exists()
