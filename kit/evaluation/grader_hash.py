"""Who judged? A hash of all that decides whether an answer is right, so that one table holds verdicts of one kind."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kit.task.task import task_in_use

_KIT = Path(__file__).resolve().parents[1]


def grader_hash() -> str:
    """A short hash of the kit's own readers and judges, and of the task in use."""
    files = [
        _KIT / "grading.py",
        _KIT / "prompts.py",
        *sorted(_KIT.glob("answers/*.py")),
        *sorted(_KIT.glob("numbers/*.py")),
    ]
    judges = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(judges + task_in_use().source.encode()).hexdigest()[:16]
