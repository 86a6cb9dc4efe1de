"""What went wrong while answering, as a sentence with the option to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.cli.errors import UserError
from kit.cli.machine_failures import is_out_of_memory
from kit.evaluation.answering import EvaluationSettings
from kit.storage.atomic import is_of_full_disk

_GOES_ON = "what has been answered is kept, and the same command goes on from there"


@contextmanager
def explained(output: Path, settings: EvaluationSettings) -> Iterator[None]:
    """Turn memory or disk running out into sentences that say what is kept.

    Raises:
        UserError: memory or disk ran out.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # torch, vLLM and the system each have their own kinds
        if is_out_of_memory(error):
            batch = settings.batch_size
            fewer = f"lower --batch-size from {batch} to {batch // 2}" if batch > 1 else "lower --max-completion-length"
            raise UserError(f"out of memory: {fewer}; {_GOES_ON}") from error
        if is_of_full_disk(error, output):
            raise UserError(f"the disk of {output} is full ({type(error).__name__}): make room; {_GOES_ON}") from error
        raise
