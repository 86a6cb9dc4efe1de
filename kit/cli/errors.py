"""How a script tells its user that something is wrong: one clear sentence each, exit status 2, no traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

# Of a disk that does not answer, as a mounted Drive that went away does.
GONE_ERRORS = (errno.ENOTCONN, errno.EIO, errno.ESTALE, errno.ENODEV)
_PIPE_CLOSED = 141  # as shells report SIGPIPE


class UserError(Exception):
    """Something that the person at the keyboard can mend.

    Each problem is a sentence that says what is wrong and what to change, and to what.
    """

    exit_status = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def of_unreadable(path: object, error: OSError) -> str:
    """The sentence about a file or folder that is there, or was, and cannot be read."""
    said = f"{path} cannot be read or written ({error.strerror})"
    if error.errno in GONE_ERRORS:
        return f"{said}: see whether its disk is still there, mount it again and run the same command again"
    return f"{said}: give this user the right to it (chmod), or name another place"


def first_line(error: BaseException) -> str:
    """What a library's exception says, in one line; its kind where it says nothing."""
    said = [line.strip() for line in str(error).strip().splitlines()]
    if len(said) > 1 and said[0].endswith(":"):  # torch and others put the reason after a heading
        said[0] += f" {said[1]}"
    return said[0][:200] if said else type(error).__name__


class Problems:
    """Collects what is wrong, so that all problems of one command line are reported together."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def catch(self, check: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """``check(...)``; where it raises ``UserError``, its problems are kept and ``None`` comes back."""
        try:
            return check(*arguments, **options)
        except UserError as error:
            self.found += error.problems
            return None

    def raise_any(self) -> None:
        """End the collecting: raise ``UserError`` with all that was found, if anything was."""
        if self.found:
            raise UserError(*dict.fromkeys(self.found))


def run_script(main: Callable[[], None], when_stopped: str = "") -> None:
    """Run a script's ``main``; a ``UserError`` becomes its sentences on stderr and its exit status.

    ``when_stopped`` is told after Ctrl-C: what is kept, and how to go on.
    """
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(error.exit_status)
    except BrokenPipeError:  # whoever read along, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
        sys.exit(_PIPE_CLOSED)
    except OSError as error:
        if error.errno not in (*GONE_ERRORS, errno.EACCES, errno.EPERM) or not error.filename:
            raise
        print(f"error: {of_unreadable(error.filename, error)}", file=sys.stderr)
        sys.exit(UserError.exit_status)
    except KeyboardInterrupt:
        print(f"stopped by Ctrl-C. {when_stopped}".strip(), file=sys.stderr)
        sys.exit(130)
