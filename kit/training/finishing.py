"""Stop now and keep what there is: a checkpoint, or the best step before it, becomes the adapter. Nothing is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

from kit.checkpointing.checkpoints import MANIFEST, checkpoints_in, damage, newest_whole, step_of
from kit.checkpointing.resuming import cut_logs
from kit.cli.errors import UserError
from kit.storage.atomic import replace_whole
from kit.storage.run_folder import RunFolder
from kit.training.best_step import BetterStep, HeldOutHistory

# Of a checkpoint, what only a training that goes on needs.
_OF_TRAINING = (MANIFEST, "trainer_state.json", "README.md", "*.pt", "*.pth", "ref")


def finish_early(run: RunFolder, step: int = 0, keep: str = "") -> tuple[int, BetterStep | None]:
    """Make a checkpoint of ``run`` its adapter; returns its step, and the better one that was taken instead.

    Args:
        run: the run folder.
        step: of the checkpoint; 0 is the newest that is whole, or an earlier step whose answers to the held-out
            questions were better, as when a run comes to its end.
        keep: ``best`` or ``last``; by default as the run has it.

    Raises:
        UserError: there is no run, or no such checkpoint; or the run is finished, with the adapter of its best step or
            of one that no checkpoint has.
    """
    record = run.read()
    wanted = keep or record["settings"].get("keep")
    made = record.get("adapter", {}) if run.has_adapter else {}
    if not step and wanted != "last" and made.get("better_than_last"):
        raise UserError(
            f"{run.path} is finished, with the adapter of step {made['step']}, its best: --finish --keep last takes "
            "the newest checkpoint's instead, --step N another's"
        )
    checkpoint = _checkpoint(run, step)
    reached = step_of(checkpoint)
    if not step and made.get("step", 0) > reached:
        raise UserError(
            f"{run.path} is finished, with the adapter of step {made['step']}: its newest checkpoint is only of step "
            f"{reached}, which --finish --step {reached} takes instead"
        )
    better = None if step or wanted == "last" else _better(run, reached)
    partial = run.unfinished_adapter
    shutil.rmtree(partial, ignore_errors=True)
    source = run.best_adapter(better.step) if better else checkpoint
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns(*_OF_TRAINING))
    cut_logs(run, reached)
    run.write(record | {"adapter": better.record if better else {"step": reached}})
    replace_whole(partial, run.adapter)
    return reached, better


def _better(run: RunFolder, reached: int) -> BetterStep | None:
    """A step before the checkpoint that answered better than the newest that was asked by then."""
    looks, steps = HeldOutHistory.of(run, until=reached), run.steps()
    if not looks.right or not steps or steps[-1]["step"] < reached:  # the logs were cut: nobody knows how it went on
        return None
    return looks.better_than(max(looks.right), [step for step in looks.right if run.best_adapter(step).is_dir()])


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
