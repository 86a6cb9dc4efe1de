"""export.json: what was exported, from what, and the numbers of each check that let it pass."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

from kit.export.checks.check import Check, ExportRefused
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder
from kit.versions import installed_versions


class ExportRecord:
    """What export.json holds, of this export and of earlier ones that still count.

    Args:
        run: the run folder.
        say: called with a line for each thing that is done.
    """

    def __init__(self, run: RunFolder, say: Callable[[str], object] = print) -> None:
        self.run, self.say = run, say
        self.content: dict[str, Any] = {"gguf": {}, "checks": {}}
        self.content |= run.exported()

    @property
    def ggufs(self) -> dict[str, Any]:
        """The entries of GGUF files, by type."""
        return self.content["gguf"]

    def verify(self, *checks: Check) -> None:
        """Say the result of each check, and keep them.

        Raises:
            ExportRefused: one has failed, with a sentence for each that has.
        """
        if failed := self.take(*checks):
            raise ExportRefused(*failed)

    def take(self, *checks: Check) -> list[str]:
        """Say the result of each check, and keep them where all have passed: what is refused is no part of the export,
        which may hold an earlier file of that name. Returns a sentence for each that has failed."""
        for check in checks:
            self.say(f"  {'ok     ' if check.passed else 'REFUSED'} {check.of}, {check.name}: {check.says}")
        failed = [f"{check.of}: {check.says}" for check in checks if not check.passed]
        for check in checks if not failed else ():
            result = {"passed": check.passed, "says": check.says, **check.numbers}
            self.content["checks"].setdefault(check.of, {})[check.name] = result
        return failed

    def write(self) -> None:
        """Write export.json, the last thing that an export writes."""
        self.content["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.content["versions"] = installed_versions()
        write_whole(self.run.export_file, json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")
