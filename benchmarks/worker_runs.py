"""Start ``benchmarks.step_worker`` and read what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

MARK = "RESULT "


def run_worker(variant: str, base: str, data: str, *options: str) -> dict[str, Any]:
    """The figures of one run; where it failed, ``error`` with the last line that it said."""
    command = [sys.executable, "-m", "benchmarks.step_worker", variant, base, data, *options]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    said = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not said:
        (*_, last) = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        return {"variant": variant, "options": options, "error": last[:300]}
    return json.loads(said[-1].removeprefix(MARK))
