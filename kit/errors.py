"""How a script tells its user that something is wrong: one clear sentence each, exit status 2, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something that the person at the keyboard can mend.

    Each problem is a sentence that says what is wrong and what to change, and to what.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def run_script(main: Callable[[], None]) -> None:
    """Run a script's ``main``; a ``UserError`` becomes its sentences on stderr and exit status 2."""
    try:
        main()
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
