"""Checkpoints on disk: whole or not at all. Each folder ``step-N`` carries the size and hash of every file in it.

A checkpoint is written under a temporary name, synced, and renamed; what a kill or a full disk leaves is recognised by
its manifest, and the one before is used. What cannot be read may be whole: its disk may be there again in a minute.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from kit.cli.errors import UserError
from kit.storage.atomic import file_hash, replace_whole, write_whole

MANIFEST = "manifest.json"
_PREFIX = "step-"


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which it was written."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def checkpoints_in(folder: Path) -> list[Path]:
    """All that have a final name, the oldest first."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, key=step_of)


def seal_checkpoint(partial: Path, folder: Path, step: int, keep: int) -> Path:
    """Give a finished checkpoint its manifest and its final name; the oldest beyond ``keep`` go.

    Raises:
        OSError: the disk is full or fails; nothing has a final name then.
    """
    files = sorted(file for file in partial.rglob("*") if file.is_file())
    content = {
        str(file.relative_to(partial)): {"bytes": file.stat().st_size, "sha256": file_hash(file)} for file in files
    }
    write_whole(partial / MANIFEST, json.dumps({"step": step, "files": content}, indent=2))
    final = folder / f"{_PREFIX}{step}"
    replace_whole(partial, final)
    for old in checkpoints_in(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; ``None`` where every file is as its manifest says.

    Raises:
        UserError: it cannot be read, so that nobody knows.
    """
    try:
        listed = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"].items()
        for name, expected in listed:
            file = checkpoint / name
            if (size := file.stat().st_size) != expected["bytes"]:
                return f"{name} has {size} of {expected['bytes']} bytes"
            if file_hash(file) != expected["sha256"]:
                return f"{name} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(checkpoint)} is missing"
    except OSError as error:
        raise UserError(
            f"the checkpoint {checkpoint} cannot be read ({error.strerror}), and is left as it is: see whether its "
            "disk is still there and run the same command again, or remove that folder to go on from the one before"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({type(error).__name__})"
    return None


def newest_whole(folder: Path, say: Callable[[str], object], remove: bool = True) -> Path | None:
    """The newest checkpoint that is whole, or ``None``; damaged ones are named to ``say``, and removed if need be.

    Raises:
        UserError: one cannot be read.
    """
    for checkpoint in reversed(checkpoints_in(folder)):
        problem = damage(checkpoint)
        if problem is None:
            return checkpoint
        say(f"the checkpoint of step {step_of(checkpoint)} is damaged ({problem}): the one before it is used")
        if remove:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return None
