"""A user's own Python file, run as Python would run it."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def run_file(path: Path) -> ModuleType:
    """The module that a file is; run once for all that is taken from it, unless it is edited.

    Raises:
        Exception: whatever the file raises.
    """
    return _run(path.resolve(), path.stat().st_mtime_ns)


@functools.cache
def _run(path: Path, _changed: int) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    folder = str(path.parent)
    sys.path.insert(0, folder)  # its neighbours can be imported, as when Python runs the file
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # for imports inside its functions, behind what the kit imports later
    return module
