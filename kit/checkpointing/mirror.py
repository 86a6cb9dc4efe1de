"""--mirror: what a run needs to go on, copied to another folder in the background, such as a mounted Google Drive.

A mirror never stops training: what fails is said, and tried again with the next checkpoint and at the end.
"""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from kit.checkpointing.checkpoints import MANIFEST, checkpoints_in, damage, newest_whole, step_of
from kit.cli.errors import UserError, first_line
from kit.storage.atomic import replace_whole
from kit.storage.run_folder import RunFolder
from kit.storage.weight_files import ADAPTER_WEIGHTS

_TRIES_AT_THE_END = 3


class Mirror:
    """Copies of one run folder's checkpoints, logs and adapter in ``folder``/NAME.

    Args:
        run: the run folder.
        folder: where copies go; it is made if need be.
        say: called with a sentence when a copy fails.
    """

    def __init__(self, run: RunFolder, folder: Path, say: Callable[[str], object]) -> None:
        self.run, self._say = run, say
        self.copy = RunFolder(folder / run.path.resolve().name)
        self._mount = _mount_of(folder)
        self._pool = ThreadPoolExecutor(1)

    def restore(self, is_finished: bool = False) -> bool:
        """Fill an empty run folder from the mirror, which stays as it is; was there something to restore?

        Args:
            is_finished: the run that is there needs no checkpoint any more.

        Raises:
            UserError: the mirror cannot be read, or the run folder not be written; or the mirror is further than a
                run that is there, which would replace it.
        """
        try:
            if not self.copy.exists():
                return False
            if self.run.exists():
                if not is_finished:
                    self._refuse_if_ahead()
                return False
            self._restore()
        except OSError as error:
            raise UserError(
                f"{self.run.path} cannot be restored from {self.copy.path} ({first_line(error)}): see whether both "
                "disks are there and have room, and run the same command again"
            ) from None
        return True

    def _refuse_if_ahead(self) -> None:
        def newest(folder: RunFolder) -> int:
            whole = newest_whole(folder.checkpoints, say=lambda _: None, remove=False)
            return step_of(whole) if whole else 0

        here = newest(self.run)
        if all(step_of(copy) <= here for copy in checkpoints_in(self.copy.checkpoints)):
            return
        there = newest(self.copy)
        if there > here:
            raise UserError(
                f"the copy {self.copy.path} is at step {there} and {self.run.path} at step {here}: move the latter "
                "away to go on from the copy, or the copy to go on from here"
            )

    def _restore(self) -> None:
        self.run.checkpoints.mkdir(parents=True, exist_ok=True)
        if newest := newest_whole(self.copy.checkpoints, self._say, remove=False):
            _copy_folder(newest, self.run.checkpoints / newest.name)
        for best in self.copy.best.glob("step-*[0-9]"):
            self.run.best.mkdir(exist_ok=True)
            _copy_folder(best, self.run.best / best.name)
        if self.copy.has_adapter:
            _copy_folder(self.copy.adapter, self.run.adapter)
        if self.copy.warm_start.is_dir():
            _copy_folder(self.copy.warm_start, self.run.warm_start)
        _copy_replies(self.copy.held_out, self.run.held_out)
        for file in self._logs(self.copy):
            _copy_file(file, self.run.path / file.name)

    def start_anew(self) -> None:
        """Forget the copies of an earlier run of the same name.

        Raises:
            UserError: something stays, and the new run would go on from it.
        """
        try:
            if self.copy.checkpoints.exists() or self.copy.exists():
                shutil.rmtree(self.copy.path)
        except OSError as error:
            raise UserError(
                f"--overwrite cannot remove {self.copy.path} ({error}): name another --mirror or --output-dir"
            ) from None

    def update(self) -> None:
        """Copy what is new, in the background; a copy that is still going on is not waited for."""
        self._pool.submit(self._copy_all)

    def finish(self) -> None:
        """Copy what is new and wait for it, trying again a few times."""
        if any(self._pool.submit(self._copy_all).result() for _ in range(_TRIES_AT_THE_END)):
            return
        self._say(f"--mirror: {self.copy.path} is not up to date, copy {self.run.path} there by hand")

    def _copy_all(self) -> bool:
        try:
            if not self._mount.is_mount():
                raise OSError("its disk is not mounted any more")
            self.copy.path.parent.mkdir(exist_ok=True)  # and none above it, which may have gone with its disk
            self.copy.checkpoints.mkdir(parents=True, exist_ok=True)
            held = checkpoints_in(self.run.checkpoints)
            for checkpoint in held:
                target = self.copy.checkpoints / checkpoint.name
                if not _is_copy(checkpoint, target):
                    _copy_folder(checkpoint, target)
            for best in self.run.best.glob("step-*[0-9]"):
                if not _is_same_best(best, self.copy.best / best.name):
                    self.copy.best.mkdir(exist_ok=True)
                    _copy_folder(best, self.copy.best / best.name)
            if self.run.has_adapter:
                _copy_folder(self.run.adapter, self.copy.adapter)
            elif self.copy.has_adapter:  # the run goes further
                shutil.rmtree(self.copy.adapter)
            if self.run.warm_start.is_dir() and not self.copy.warm_start.exists():
                _copy_folder(self.run.warm_start, self.copy.warm_start)
            _copy_replies(self.run.held_out, self.copy.held_out)
            for file in self._logs(self.run):
                _copy_file(file, self.copy.path / file.name)
            for old in checkpoints_in(self.copy.checkpoints):
                if held and old.name not in {checkpoint.name for checkpoint in held}:
                    shutil.rmtree(old, ignore_errors=True)
            for old in self.copy.best.glob("step-*"):
                if not (self.run.best / old.name).exists():
                    shutil.rmtree(old, ignore_errors=True)
        except Exception as error:  # a Drive that is unmounted, full, slow: training goes on
            self._say(f"--mirror {self.copy.path.parent} failed ({error}): it is tried again with the next checkpoint")
            return False
        return True

    @staticmethod
    def _logs(run: RunFolder) -> list[Path]:
        return [file for file in _files(run) if file.exists()]


def _mount_of(folder: Path) -> Path:
    """Where the disk is mounted on which a folder lies, or would lie."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_mount())


def restored(run: RunFolder) -> list[Path]:
    """What of a run folder comes from its mirror, and is there alone where a restore was cut off."""
    return [run.checkpoints, run.best, run.adapter, run.warm_start, run.held_out, *_files(run)]


def _files(run: RunFolder) -> tuple[Path, ...]:
    # run.yaml last: with it, the copy counts as a run
    return (
        run.metrics_file, run.samples_file, run.warm_start_replies, run.warm_start_file, run.screen_answers,
        run.screen_file, run.trained_on_file, run.settings_file,
    )  # fmt: skip


def _is_same_best(best: Path, copy: Path) -> bool:
    """Of step 0 there may be two, the base's and that of the warm start, which takes its place."""
    if step_of(best) or not copy.exists():
        return copy.exists()
    held = copy / ADAPTER_WEIGHTS
    return held.exists() and filecmp.cmp(best / ADAPTER_WEIGHTS, held, shallow=False)


def _is_copy(checkpoint: Path, target: Path) -> bool:
    """The same manifest, and every file as it says."""
    manifests = [path / MANIFEST for path in (checkpoint, target)]
    if not manifests[1].is_file() or manifests[0].read_bytes() != manifests[1].read_bytes():
        return False
    with suppress(UserError):  # what cannot be read is copied anew
        return damage(target) is None
    return False


def _copy_replies(source: Path, target: Path) -> None:
    """The files of held-out replies, those alone that are new or others than before."""
    if not source.is_dir():
        return
    target.mkdir(exist_ok=True)
    for file in target.glob("*.jsonl"):
        if not (source / file.name).exists():
            file.unlink()
    for file in source.glob("*.jsonl"):
        copy = target / file.name
        if not copy.exists() or not filecmp.cmp(file, copy, shallow=False):
            _copy_file(file, copy)


def _copy_folder(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    replace_whole(partial, target)


def _copy_file(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    replace_whole(partial, target)
