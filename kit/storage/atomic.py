"""Files that are whole or not there: written under a temporary name, synced to the disk, renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from functools import lru_cache
from pathlib import Path

_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)  # no room, or none in this user's quota
_FULL_BYTES = 32e6


def is_of_full_disk(error: Exception, path: Path) -> bool:
    """Did this happen for want of room on the disk of ``path``? Each library has its own way to say so."""
    return _is_full(path) or getattr(error, "errno", None) in _FULL_ERRORS


def _is_full(path: Path) -> bool:
    """Is so little room left on the disk of ``path`` that whatever just failed to be written failed for want of it?"""
    try:
        return shutil.disk_usage(path).free < _FULL_BYTES
    except OSError:  # it went away: that is another failure
        return False


def sync(path: Path) -> None:
    """Have a file, or a folder's list of names, written to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_whole(partial: Path, final: Path) -> None:
    """Give a finished file or folder its final name, in place of what has that name."""
    for path in (*partial.rglob("*"), partial):
        sync(path)
    before = final.with_name(f".{final.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if final.is_dir():
        final.rename(before)  # so that a kill never leaves half of it under the final name
    partial.rename(final)
    sync(final.parent)
    shutil.rmtree(before, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file; a kill leaves the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    replace_whole(partial, path)


def file_hash(file: Path) -> str:
    """The SHA-256 of a file's content; hashed once a process, unless it changes."""
    status = file.stat()
    return _hash(str(file), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash(file: str, *_: int) -> str:
    with Path(file).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
