"""Stop now and keep what there is: a checkpoint becomes the adapter, and nothing is loaded for it."""

from __future__ import annotations

import shutil
from pathlib import Path

from kit.checkpointing.checkpoints import MANIFEST, checkpoints_in, damage, newest_whole, step_of
from kit.checkpointing.resuming import cut_logs
from kit.cli.errors import UserError
from kit.storage.atomic import replace_whole
from kit.storage.run_folder import RunFolder

# Of a checkpoint, what only a training that goes on needs.
_OF_TRAINING = (MANIFEST, "trainer_state.json", "README.md", "*.pt", "*.pth", "ref")


def finish_early(run: RunFolder, step: int = 0) -> int:
    """Make a checkpoint of ``run`` its adapter; returns the step that it is of.

    Args:
        run: the run folder.
        step: of the checkpoint; 0 is the newest that is whole.

    Raises:
        UserError: there is no run, or no such checkpoint.
    """
    record = run.read()
    checkpoint = _checkpoint(run, step)
    step = step_of(checkpoint)
    partial = run.unfinished_adapter
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(checkpoint, partial, ignore=shutil.ignore_patterns(*_OF_TRAINING))
    cut_logs(run, step)
    record["settings"]["max_steps"] = step
    run.write(record | {"adapter": {"step": step}})
    replace_whole(partial, run.adapter)
    return step


def _checkpoint(run: RunFolder, step: int) -> Path:
    if not step:
        if newest := newest_whole(run.checkpoints, say=print):
            return newest
        raise UserError(
            f"{run.path} has no checkpoint that could be its adapter: the same command without --finish goes on, and "
            "Ctrl-C saves one"
        )
    checkpoint = run.checkpoints / f"step-{step}"
    if checkpoint.is_dir() and damage(checkpoint) is None:
        return checkpoint
    there = ", ".join(str(step_of(path)) for path in checkpoints_in(run.checkpoints)) or "none"
    raise UserError(f"{run.path} has no whole checkpoint of step {step}: name one of those that are there ({there})")
