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
    found: list[Artefact] = []
    problems: list[str] = []
    for path in paths:
        try:
            found += _of_run(RunFolder(Path(path))) if RunFolder(Path(path)).exists() else [_single(path)]
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return _with_unique_names(list(dict.fromkeys(found)))


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
    check_model(run.base_model(), option=f"the base model of {run.path},")
    found = [Artefact("base", Kind.MODEL, run.base_model())]
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
    return Artefact("merged" if is_merged else "base", Kind.MODEL, path)


def _recorded_base(adapter: Path) -> str:
    try:
        return json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{adapter}/adapter_config.json names no base model: save the adapter again") from None


def _with_unique_names(artefacts: list[Artefact]) -> list[Artefact]:
    """Artefacts of the same name are told apart by their paths. A name is also the name of a file, its transcript."""
    names = [artefact.name for artefact in artefacts]
    told_apart = [a.name if names.count(a.name) == 1 else a.path for a in artefacts]
    safe = [re.sub(r"[^\w.-]+", "-", name).strip("-.") or f"model-{i}" for i, name in enumerate(told_apart)]
    return [replace(artefact, name=name) for artefact, name in zip(artefacts, safe, strict=True)]
