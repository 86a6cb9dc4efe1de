"""What is this path? Base model, adapter, merged model, GGUF file, or a run folder that holds all of them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path

from kit.errors import UserError
from kit.hub import check_model, is_hub_id, revision, sixteen_bit_name
from kit.runs import RunFolder, run_folder_of

_CONTENT = {".safetensors", ".json", ".jinja", ".model", ".txt"}  # what of a model folder decides how it answers


class Kind(Enum):
    """How an artefact is loaded."""

    MODEL = "model"  # a Hugging Face folder or Hub id: base and merged models
    ADAPTER = "adapter"
    GGUF = "gguf"


@dataclass(frozen=True)
class Artefact:
    """Something that answers questions. ``base`` is set for an adapter whose run folder knows its base."""

    name: str
    kind: Kind
    path: str
    base: str | None = None


def find_artefacts(paths: list[str]) -> list[Artefact]:
    """The artefacts that the paths name, in order and each once; a run folder stands for all that it holds.

    Raises:
        UserError: a path is none of these.
    """
    found: dict[str, Artefact] = {}
    own: set[str] = set()  # of the first run folder, whose artefacts keep their short names
    problems: list[str] = []
    for path in paths:
        run = RunFolder(Path(path))
        try:
            held = {_place(artefact.path): artefact for artefact in (_of_run(run) if run.exists() else [_single(path)])}
        except UserError as error:
            problems += error.problems
            continue
        own = own or (set(held) if run.exists() else set())
        found |= held if run.exists() else {place: held[place] for place in held if place not in found}
    if problems:
        raise UserError(*problems)
    return _with_unique_names(found, own)


def artefact_at(path: str, artefacts: list[Artefact]) -> Artefact:
    """The one of ``artefacts`` that lies at ``path``, however that is spelled."""
    return next(artefact for artefact in artefacts if _place(artefact.path) == _place(path))


def _place(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path


def fingerprint(artefact: Artefact) -> str:
    """A short hash of what answers: weights, settings and tokenizer, an adapter's base included; not of their names."""
    parts = [_content(artefact.path)]
    if artefact.kind is Kind.ADAPTER:
        parts.append(_content(sixteen_bit_name(artefact.base or _recorded_base(Path(artefact.path)))))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def lora_rank(adapter: Path) -> int:
    """The rank of an adapter, from its adapter_config.json."""
    return int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])


def _content(path: str) -> str:
    """A hash of a file, of a model folder's files, or the revision of a Hub repository."""
    local = Path(path)
    if local.is_dir():
        files = sorted(file for file in local.iterdir() if file.suffix in _CONTENT)
        return "".join(f"{file.name} {file_hash(file)}" for file in files)
    return revision(path) if is_hub_id(path) and not local.exists() else file_hash(local)


def file_hash(file: Path) -> str:
    """The SHA-256 of a file's content; hashed once a process, unless it changes."""
    status = file.stat()
    return _hash(str(file), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash(file: str, *_: int) -> str:
    with Path(file).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _of_run(run: RunFolder) -> list[Artefact]:
    base = sixteen_bit_name(run.base_model())  # what merging starts from, also where training had 4-bit weights
    check_model(base, option=f"the base model of {run.path},")
    found = [Artefact("base", Kind.MODEL, base)]
    found += [_single(str(path)) for path in (run.adapter, run.merged) if path.is_dir()]
    by_size = sorted(run.gguf.glob("*.gguf"), key=lambda path: path.stat().st_size, reverse=True)
    return found + [_single(str(path)) for path in by_size]


def _single(path: str) -> Artefact:
    local = Path(path)
    run = run_folder_of(local)
    if local.suffix == ".gguf":
        if not local.is_file():
            raise UserError(f"{path} does not exist: name an existing GGUF file")
        return Artefact(local.name.removesuffix(".gguf").rsplit(".", 1)[-1], Kind.GGUF, path)
    if (local / "adapter_config.json").is_file():
        base = run.base_model() if run else _recorded_base(local)
        check_model(sixteen_bit_name(base), option=f"the base model of {path},")
        return Artefact("adapter", Kind.ADAPTER, path, base)
    check_model(path, option="")
    is_merged = run is not None and run.merged.resolve() == local.resolve()
    return Artefact("merged" if is_merged else Path(path).name or "model", Kind.MODEL, path)


def _recorded_base(adapter: Path) -> str:
    try:
        return json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{adapter}/adapter_config.json names no base model: save the adapter again") from None


def _with_unique_names(found: dict[str, Artefact], own: set[str]) -> list[Artefact]:
    """Artefacts of the same name are told apart by their paths. A name is also the name of a file, its transcript."""
    names = [artefact.name for artefact in found.values()]
    named: dict[str, Artefact] = {}
    for place, artefact in sorted(found.items(), key=lambda item: item[0] not in own):
        alone = place in own or names.count(artefact.name) == 1
        name = re.sub(r"[^\w.-]+", "-", artefact.name if alone else artefact.path).strip("-.") or "model"
        number = next(n for n in range(1, len(names) + 1) if (name if n == 1 else f"{name}-{n}") not in named)
        named[name if number == 1 else f"{name}-{number}"] = artefact
    by_place = {_place(artefact.path): replace(artefact, name=name) for name, artefact in named.items()}
    return [by_place[place] for place in found]
