"""A check of an artefact, with its number, and what a failed one does. What checks compute, they compute in float32."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kit.cli.errors import UserError


@dataclass(frozen=True)
class Check:
    """One check of one artefact; ``says`` is a sentence with its number, ``numbers`` go into export.json."""

    of: str
    name: str
    passed: bool
    says: str
    numbers: dict[str, Any] = field(default_factory=dict)


class ExportRefused(UserError):
    """The gate did not let an export pass."""

    exit_status = 3
