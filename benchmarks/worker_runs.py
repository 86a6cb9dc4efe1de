"""Start a module in a process of its own and read the figures that it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

MARK = "RESULT "
STEP_WORKER = "benchmarks.step_worker"


def run_worker(module: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """The figures of one run of a module; where it failed, ``error`` with the end of what it said."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not said:
        return {"error": (done.stderr or done.stdout).strip()[-2000:] or f"exit status {done.returncode}"}
    return json.loads(said[-1].removeprefix(MARK))
