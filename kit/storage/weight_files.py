"""What lies in a model folder: its weights, an adapter's, or both; and can they be read, before anything loads them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from kit.cli.errors import UserError

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
SECOND_COPY = "consolidated"  # what Mistral's own loader reads
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.safetensors$")
_POINTER = b"version https://git-lfs.github.com/spec/"
_PICKLED = "pytorch_model*.bin"
_UNREAD_NAMES = {"README.md", "scores.json"}  # the second, like transcripts/, is what evaluation itself writes
_UNREAD_FOLDERS = re.compile(r"\.|__pycache__$|transcripts$|checkpoint-\d+$")


def is_pointer(file: Path) -> bool:
    """Is this git-lfs's note of a file, as a clone without git-lfs leaves it, and not the file itself?"""
    with file.open("rb") as handle:
        return handle.read(len(_POINTER)) == _POINTER


def is_adapter(folder: Path) -> bool:
    """Does a folder hold an adapter, or something of one?"""
    return (folder / ADAPTER_CONFIG).is_file() or any(folder.glob("adapter_model.*"))


def is_full_model(folder: Path) -> bool:
    """Does a folder hold a model with weights of its own, pickled ones included?"""
    pickled = any(folder.glob(_PICKLED))
    return (folder / "config.json").is_file() and (pickled or bool(_weights_in(folder)))


def is_quantized(model: str) -> bool:
    """Is this a local folder of weights that are quantized already, by what its config.json says?"""
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("quantization_config"))


def files_that_answer(folder: Path) -> list[Path]:
    """Every file of a model folder that an engine may read, in order.

    A file of a kind that nobody here knows counts. Hidden files, GGUF files, a trainer's checkpoints, the README and
    what evaluation writes do not: no engine that is given the folder reads them.
    """

    def walk(inside: Path, above: tuple[Path, ...]) -> Iterator[Path]:
        for path in inside.iterdir():
            if path.is_dir() and not _UNREAD_FOLDERS.match(path.name) and path.resolve() not in above:
                yield from walk(path, (*above, path.resolve()))
            elif path.is_file() and path.name not in _UNREAD_NAMES and path.name[0] != "." and path.suffix != ".gguf":
                yield path

    return sorted(walk(folder, (folder.resolve(),)))


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files that engines read of an adapter's or a model's folder.

    Mistral's repositories hold all weights a second time, as consolidated.safetensors under other names.

    Raises:
        UserError: there are shards without an index, or with one that does not parse.
    """
    if is_adapter(folder) and not is_full_model(folder):
        return [folder / ADAPTER_WEIGHTS]
    return _read_by_engines(folder, _weights_in(folder), str(folder))


def check_model_weights(folder: Path, shown: str) -> None:
    """Refuse a model folder without weights that can be read. Pickled ones count as none: reading them can run code.

    Raises:
        UserError: begins with ``shown``, how the user knows the folder.
    """
    weights = _weights_in(folder)
    if not weights and any(folder.glob("*.gguf")):
        raise UserError(f"{shown} holds GGUF files and no .safetensors weights: name one of the GGUF files")
    if not weights:
        raise UserError(f"{shown} holds no .safetensors weights: convert them (pickled weights can run code)")
    _check_readable(folder, _read_by_engines(folder, weights, shown), shown)


def check_adapter(folder: Path, shown: str) -> None:
    """Refuse an adapter folder that lacks something, or whose weights are pickled or cannot be read.

    Raises:
        UserError: begins with ``shown``, how the user knows the folder.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise UserError(f"{shown} holds adapter weights and no {ADAPTER_CONFIG}: copy it there, or save it again")
    if not os.path.lexists(folder / ADAPTER_WEIGHTS):
        if any(folder.glob("adapter_model.*")):
            raise UserError(f"{shown} holds no .safetensors weights: convert them (pickled weights can run code)")
        raise UserError(
            f"{shown} holds {ADAPTER_CONFIG} and no {ADAPTER_WEIGHTS}: copy it there, or save the adapter again"
        )
    _check_readable(folder, [folder / ADAPTER_WEIGHTS], shown)


def is_models(file: Path) -> bool:
    """Are these a model's weights? An adapter's are none, nor is a second copy."""
    return file.suffix == ".safetensors" and not file.name.startswith(("adapter_model", SECOND_COPY))


def _weights_in(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.safetensors")) if is_models(file)]


def _read_by_engines(folder: Path, weights: list[Path], shown: str) -> list[Path]:
    """One file, or the shards that the index names."""
    if folder / _SINGLE in weights:
        return [folder / _SINGLE]
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    except FileNotFoundError:
        if any(_SHARD.search(file.name) for file in weights):
            raise UserError(f"{shown} holds shards and no {_INDEX}, which says what is in them: fetch it too") from None
        return weights
    except (ValueError, KeyError, TypeError, AttributeError):
        if is_pointer(folder / _INDEX):
            return [folder / _INDEX]
        raise UserError(f"{shown}: {_INDEX} does not parse: fetch or save it again") from None


def _check_readable(folder: Path, weights: list[Path], shown: str) -> None:
    missing = [str(file.relative_to(folder)) for file in weights if not file.is_file()]
    if missing:
        raise UserError(f"{shown} lacks {_some(missing)}: fetch or copy what is missing")
    beside = [file for file in sorted(folder.iterdir()) if file.is_file() and file.suffix in (".json", ".model")]
    pointers = [str(file.relative_to(folder)) for file in [*weights, *beside] if is_pointer(file)]
    if pointers:
        raise UserError(
            f"{shown} was cloned without git-lfs, {_some(pointers)} is a pointer and not the file: "
            "run `git lfs pull` there, or fetch it again"
        )
    for file in weights:
        if why := _why_unreadable(file):
            raise UserError(f"{shown}: {file.relative_to(folder)} {why}: fetch or save it again")


def _why_unreadable(file: Path) -> str | None:
    """What is wrong with a safetensors file by its header, in words; ``None`` where nothing is."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if size < 8:
            return f"is cut short, it has {size} bytes"
        if length > size - 8:
            return f"is no safetensors file, or is cut short ({size} bytes)"
        try:
            header = json.loads(handle.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "is no safetensors file"
    whole = 8 + length + max(ends, default=0)
    return f"is cut short, {size} of {whole} bytes are there" if size < whole else None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 3 else ""
    return ", ".join(names[: 2 if more else 3]) + more
