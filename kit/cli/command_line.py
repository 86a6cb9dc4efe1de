"""Command lines whose mistakes are answered in one sentence, with the nearest option that exists."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kit.cli.errors import UserError

_OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")


def nearest(name: str, known: Iterable[str]) -> str:
    """``, did you mean X?`` for a misspelt name or one that is not whole, or nothing where no known one is near.

    >>> nearest("--max-step", ["--max-steps", "--seed"])
    ', did you mean --max-steps?'
    >>> nearest("rtx3060", ["rtx3090", "rtx3060-12gb", "rtx3060-laptop-6gb"])
    ', did you mean rtx3060-12gb or rtx3060-laptop-6gb?'
    """
    names = list(dict.fromkeys(known))
    longer = [known_name for known_name in names if name and known_name.startswith(name)]
    close = longer or difflib.get_close_matches(name, names, n=1)
    return f", did you mean {' or '.join(close)}?" if close else ""


def at_home(path: str) -> str:
    """A path whose ``~`` is the home folder; shells leave it as it is behind ``=``, and YAML does.

    Raises:
        UserError: it is one of Windows, which would be taken for a name here.
    """
    if _OF_WINDOWS.match(path):
        there = f"/mnt/{path[0].lower()}/" + path[3:].replace("\\", "/")
        raise UserError(f"{path} is Windows' name for it: in WSL it is {there}")
    return str(Path(path).expanduser()) if path == "~" or path.startswith("~/") else path


def home_path(text: str) -> Path:
    """An argparse type: a path, as ``at_home`` reads it."""
    return Path(at_home(text))


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are ``UserError`` and name every unknown option at once."""

    def __init__(self, description: str | None, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False, **options)
        self._has_options = False

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """The arguments.

        Raises:
            UserError: an option is unknown, or a value is missing or wrong.
        """
        words = sys.argv[1:] if argv is None else argv
        self._has_options = any(word.startswith("--") for word in words)
        arguments, unknown = self.parse_known_args(words)
        options = [name.split("=")[0] for name in unknown if name.startswith("--")]
        known = [name for action in self._actions for name in action.option_strings]
        if options:
            raise UserError(
                *(f"there is no option {name}{nearest(name, known) or ': --help lists them'}" for name in options)
            )
        if unknown:
            raise UserError(f"{' '.join(unknown)!r} is more than was asked for: {self._remedy(unknown, known)}")
        return arguments

    def _remedy(self, unknown: list[str], known: list[str]) -> str:
        if "--config" in known and unknown[0].endswith((".yaml", ".yml")):
            return f"settings from a file are --config {unknown[0]}"
        takes_paths = any(not action.option_strings for action in self._actions)
        first = "put all PATHs together, before the options; " if takes_paths else ""
        return f"{first}--help shows the form of the command"

    def error(self, message: str) -> NoReturn:
        """argparse calls this for a missing or wrong value."""
        taken = message.endswith("required: PATH") and self._has_options
        first = " (before the options, of which one may have taken it)" if taken else ""
        raise UserError(f"{message}{first}: --help shows the form of the command")


def positive_int(text: str) -> int:
    """An argparse type: a whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def positive_number(text: str) -> float:
    """An argparse type: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number
