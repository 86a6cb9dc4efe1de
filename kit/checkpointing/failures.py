"""What went wrong while training, as a sentence with the setting to change; what nobody foresaw stays a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kit import ranks
from kit.checkpointing.checkpoints import checkpoints_in, step_of
from kit.cli.errors import GONE_ERRORS, UserError, first_line
from kit.cli.machine_failures import is_lost, is_out_of_memory
from kit.settings.knobs import Settings
from kit.storage.atomic import is_of_full_disk
from kit.storage.run_folder import RunFolder


class RunStopped(UserError):
    """Training could not go on; its checkpoints are whole."""

    exit_status = 1


@contextmanager
def explained(run: RunFolder, settings: Settings) -> Iterator[None]:
    """Turn memory or disk running out, and what a reward raised, into sentences that say what is kept.

    Raises:
        RunStopped: memory or disk ran out, or the disk went away.
        UserError: a reward function failed.
    """
    again = same_command(settings)
    try:
        yield
    except UserError as error:
        raise type(error)(*error.problems, *_what_is_kept(run, settings)) from error
    except Exception as error:  # torch, safetensors and the system each have their own kinds
        if is_out_of_memory(error):
            raise RunStopped(f"out of memory: {_less_memory(settings)}", *_what_is_kept(run, settings)) from error
        if is_of_full_disk(error, run.path):
            raise RunStopped(
                f"the disk of {run.path} is full ({type(error).__name__}): make room, and {again} goes on",
                *_what_is_kept(run, settings),
            ) from error
        if isinstance(error, OSError) and error.errno in GONE_ERRORS:
            raise RunStopped(
                f"{error.filename or run.path} cannot be reached ({error.strerror}): see whether its disk is still "
                f"there, mount it again, and {again} goes on",
                *_what_is_kept(run, settings),
            ) from error
        if ranks.is_of_lost_process(error):
            raise RunStopped(
                f"another process of this run is gone, or cannot be reached ({first_line(error)}); where it said why, "
                f"that stands above: {again} goes on from the last checkpoint",
                *_what_is_kept(run, settings),
            ) from error
        if is_lost(error):
            raise RunStopped(
                f"the card gave up ({first_line(error)}), which is how some kernels run out of memory: {again} "
                f"goes on; if it comes back, {_less_memory(settings)}, or use --vllm off",
                *_what_is_kept(run, settings),
            ) from error
        raise


def same_command(settings: Settings) -> str:
    """How to call the command that goes on with a run that stopped."""
    return "the same command without --overwrite" if settings.overwrite else "the same command"


def _what_is_kept(run: RunFolder, settings: Settings) -> list[str]:
    """A sentence where there is a checkpoint; without one, it would only look like a second error."""
    try:
        steps = [step_of(checkpoint) for checkpoint in checkpoints_in(run.checkpoints)]
    except OSError:  # its disk went away
        return []
    anew = f": {same_command(settings)} goes on from it" if settings.overwrite else ""
    return [f"the checkpoint of step {steps[-1]} is whole{anew}"] if steps else []


def _less_memory(settings: Settings) -> str:
    batch, accumulation = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    if batch % 2 == 0:
        return (
            f"lower --batch-size from {batch} to {batch // 2} and raise --gradient-accumulation-steps from "
            f"{accumulation} to {settings.completions_per_card // (batch // 2)}, which learns the same"
        )
    length = settings.max_completion_length
    return f"lower --max-completion-length from {length} to {length // 2} and start anew with --overwrite"
