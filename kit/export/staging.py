"""Where an export is made until it has passed: a folder beside the final names, gone afterwards, whatever happens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.export.checks.check import ExportRefused
from kit.storage.atomic import is_of_full_disk
from kit.storage.hub import weights_bytes
from kit.storage.run_folder import ADAPTER_KIND, RunFolder

_SPARE_BYTES = 300e6  # KL's logits and a margin
# Sizes of files as multiples of the 16-bit weights; that of an adapter counts the f16 GGUF of its base too.
_RELATIVE_SIZE = {"f32": 2.0, "f16": 1.0, "bf16": 1.0, ADAPTER_KIND: 1.2}
_QUANTIZED_SIZE = 0.6  # at most


@contextmanager
def staging(run: RunFolder) -> Iterator[Path]:
    """The temporary folder while the ``with`` block runs. A kill leaves it, and the next export removes it.

    Raises:
        ExportRefused: the disk filled up.
    """
    folder = run.unfinished_export
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    except ExportRefused:
        raise
    except Exception as error:  # each library has its own way to say that the disk is full
        if not is_of_full_disk(error, run.path):
            raise
        raise ExportRefused(
            f"the disk of {run.path} is full ({type(error).__name__}): make room and run the command again"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_disk(run: RunFolder, kinds: list[str], with_merge: bool) -> None:
    """Refuse an export for which the disk has no room.

    Raises:
        ExportRefused: with what is needed and what is free.
    """
    weights = weights_bytes(run.merge_base())
    parts = 1.0 + with_merge + sum(_RELATIVE_SIZE.get(kind, _QUANTIZED_SIZE) for kind in kinds if kind != "f16")
    there = next(folder for folder in (run.path, *run.path.resolve().parents) if folder.exists())
    needed, free = parts * weights + _SPARE_BYTES, shutil.disk_usage(there).free
    if free < needed:
        raise ExportRefused(
            f"the export needs {needed / 1e9:.1f} GB of disk at {run.path}, {free / 1e9:.1f} GB are free: make room, "
            "or export fewer types"
        )
