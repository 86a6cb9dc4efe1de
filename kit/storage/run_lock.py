"""One run folder, one program that writes it: a second is refused while the first is there."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from kit.cli.errors import UserError

LOCK = ".lock"
_IN_USE = (errno.EACCES, errno.EAGAIN)
_held: dict[Path, IO[str]] = {}  # for as long as this process is there, whatever ends it


def take(folder: Path) -> None:
    """Keep a run folder for this process; the folder is made if need be.

    A record lock, since other kinds go on in processes that were started by this one. Where the disk knows no locks, as
    some mounted Drives do not, nothing is kept, and nothing refused.

    Raises:
        UserError: another program writes it now, or it cannot be written to.
    """
    lock = folder.resolve() / LOCK
    if lock in _held and lock.exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = lock.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written to ({error.strerror}): make room there, or name another folder"
        ) from None
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _IN_USE:
            return
        handle.seek(0)
        raise UserError(
            f"{folder} is written now by {handle.read().strip() or 'another program'}: wait for its end, or stop it "
            "first (Ctrl-C there; a training saves a checkpoint)"
        ) from None
    _held[lock] = handle
    with suppress(OSError):  # a full disk holds the lock without its holder's name
        handle.truncate(0)
        handle.write(f"{Path(sys.argv[0]).name}, process {os.getpid()}\n")
        handle.flush()
