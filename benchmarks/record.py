"""Where figures go: ``benchmarks/results/NAME.json``, each with the machine, the versions and the commit."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def write_result(name: str, figures: dict[str, Any], packages: tuple[str, ...] = ()) -> Path:
    """Write the figures of benchmark ``name`` with what is needed to judge them; returns the file."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    content = {
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {package: importlib.metadata.version(package) for package in packages},
        "commit": commit.stdout.strip(),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(in_lines(content) + "\n", encoding="utf-8")
    return file


def in_lines(value: Any, depth: int = 0) -> str:
    """JSON with an entry a line, and each entry of a list on one: a run is a line, however many points it has."""
    margin = "  " * (depth + 1)
    if isinstance(value, dict) and value:
        inside = [f"{margin}{json.dumps(name)}: {in_lines(entry, depth + 1)}" for name, entry in value.items()]
        return "{\n" + ",\n".join(inside) + "\n" + margin[2:] + "}"
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        return "[\n" + ",\n".join(margin + json.dumps(entry) for entry in value) + "\n" + margin[2:] + "]"
    return json.dumps(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
