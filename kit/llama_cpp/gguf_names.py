"""A GGUF file before anything loads it: is it one, which parts belong to it, what is it called, of what type is it."""

from __future__ import annotations

import re
from pathlib import Path

from kit.cli.errors import UserError
from kit.llama_cpp.build import GGUF_TYPES
from kit.storage.weight_files import is_pointer

_ENDING = re.compile(r"\.gguf$", re.IGNORECASE)
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")  # how llama-gguf-split names what it makes of one file
_TYPE = re.compile(rf"(?:^|[-._])({'|'.join(sorted(GGUF_TYPES, key=len, reverse=True))})$", re.IGNORECASE)
_GUESSED = 1024  # a flag in general.file_type, beside the type


def is_gguf(path: Path) -> bool:
    """Is this a GGUF file, by its ending or, as with Ollama's blobs, by how it begins?"""
    if path.is_dir():
        return False
    if _ENDING.search(path.name):
        return True
    if not path.is_file():
        return False
    with path.open("rb") as handle:
        return handle.read(4) == b"GGUF"


def ggufs_in(folder: Path) -> list[Path]:
    """The GGUF files of a folder, the largest first; a split one is named by its first part."""
    files = [file for file in folder.glob("*") if _ENDING.search(file.name) and _part(file)[0] == 1]
    return sorted(files, key=lambda file: (-sum(part.stat().st_size for part in parts(file)), file.name))


def parts(file: Path) -> list[Path]:
    """The files that are loaded when ``file`` is named: itself, or with the first part of a split one all others."""
    number, count = _part(file)
    if count == 1 or number != 1:
        return [file]
    return [file.with_name(_part_name(file, other, count)) for other in range(1, count + 1)]


def check_gguf(file: Path, shown: str) -> None:
    """Refuse a GGUF file that cannot be loaded, as far as its name and its first bytes say.

    Raises:
        UserError: with the reason and the remedy.
    """
    if not file.is_file():
        raise UserError(f"{shown} does not exist: name an existing GGUF file")
    number, count = _part(file)
    if number != 1:
        raise UserError(
            f"{shown} is part {number} of {count} of a split file: name the first, {_part_name(file, 1, count)}"
        )
    for part in parts(file):
        name = shown if part == file else str(part)
        if not part.is_file():
            raise UserError(f"{shown} is the first of {count} parts, and {part.name} is not beside it: fetch it too")
        if is_pointer(part):
            raise UserError(
                f"{name} was cloned without git-lfs, it is a pointer and not the file: run `git lfs pull` there, or "
                "fetch it again"
            )


def gguf_name(file: Path, in_run: bool) -> str:
    """What a GGUF file is called: in a run folder by its type alone, NAME.<type>.gguf; elsewhere by its whole name."""
    stem = _PART.sub("", _ENDING.sub("", file.name))
    kind = stem.rsplit(".", 1)[-1]
    return kind if in_run and kind.lower() in GGUF_TYPES else stem


def number_type(file: Path) -> str | None:
    """The type of the weights, such as ``q4_k_m``: as the file says, else as its name does; ``None`` if neither."""
    from kit.llama_cpp.gguf import GgufFile, gguf_library

    try:
        said = GgufFile(file).value("general.file_type")
        if said is not None:
            return gguf_library().LlamaFileType(int(said) & ~_GUESSED).name.split("_", 1)[-1].lower()
    except Exception:  # the library has many ways to say that a file is none, or newer than it
        pass
    found = _TYPE.search(_PART.sub("", _ENDING.sub("", file.name)))
    return found[1].lower() if found else None


def _part(file: Path) -> tuple[int, int]:
    """(number, count) of a split file's part; (1, 1) of a whole one."""
    found = _PART.search(_ENDING.sub("", file.name))
    return (int(found[1]), int(found[2])) if found else (1, 1)


def _part_name(file: Path, number: int, count: int) -> str:
    stem = _ENDING.sub("", file.name)
    return f"{_PART.sub('', stem)}-{number:05}-of-{count:05}{file.name[len(stem) :]}"
