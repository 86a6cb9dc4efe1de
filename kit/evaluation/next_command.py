"""The ``evaluate.py`` call that a run's own kind of questions wants, as training and export print it at their end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kit.settings.knobs import Settings
from kit.storage.hub import is_remote

_ALIKE = ("dataset_config", "question_column", "answer_column")  # held-out questions look as those of the training


def evaluation_command(run: Path, settings: Mapping[str, Any]) -> str:
    """The command line for a run folder and what is known of its training's settings.

    >>> evaluation_command(Path("runs/mine"), {"dataset": "my.jsonl", "answer_column": "total"})
    'python evaluate.py runs/mine --dataset YOUR_HELD_OUT_QUESTIONS.jsonl --answer-column total'
    """
    default = Settings()
    dataset = settings.get("dataset", default.dataset)
    data = dataset if is_remote(dataset) else "YOUR_HELD_OUT_QUESTIONS.jsonl"
    options = [
        f"--{name.replace('_', '-')} {shlex.quote(settings[name])}"
        for name in _ALIKE
        if name in settings and settings[name] != getattr(default, name)
    ]
    return " ".join(["python evaluate.py", shlex.quote(str(run)), "--dataset", shlex.quote(data), *options])
