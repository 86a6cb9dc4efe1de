"""What is this path? Base model, adapter, merged model, GGUF file, or a run folder that holds all of them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from kit.chat_templates import check_template
from kit.cli.errors import Problems, UserError
from kit.llama_cpp.adapter_gguf import is_adapter_gguf
from kit.llama_cpp.gguf import GgufFile
from kit.llama_cpp.gguf_names import check_gguf, gguf_name, ggufs_in, is_gguf, number_type, parts
from kit.models.positions import check_positions
from kit.models.tensors import with_tokenizer
from kit.storage.atomic import file_hash
from kit.storage.hub import (
    check_base,
    check_model,
    folder_here,
    is_adapter_repository,
    is_remote,
    local_folder,
    revision,
    sixteen_bit_name,
)
from kit.storage.model_files import template_in
from kit.storage.run_folder import RunFolder, run_folder_of
from kit.storage.weight_files import ADAPTER_CONFIG, check_adapter, files_that_answer, is_adapter, is_full_model


class Kind(Enum):
    """How an artefact is loaded."""

    MODEL = "model"  # a Hugging Face folder or Hub id: base and merged models
    ADAPTER = "adapter"
    GGUF = "gguf"


@dataclass(frozen=True)
class Artefact:
    """Something that answers questions.

    Args:
        name: in tables and as the name of its transcript.
        kind: how it is loaded.
        path: where it lies, or its Hub id.
        base: what an adapter stands on: its 16-bit base, from which merging starts too, or the 4-bit one of training.
            Of an adapter's GGUF, a GGUF of its base.
        number_type: of a GGUF file, where known.
    """

    name: str
    kind: Kind
    path: str
    base: str | None = None
    number_type: str | None = None


def find_artefacts(paths: list[str], base_4bit: bool = False, base: str | None = None) -> list[Artefact]:
    """The artefacts that the paths name, in order and each once; a run folder stands for all that it holds.

    Args:
        paths: as the user wrote them.
        base_4bit: whether adapters stand on their 4-bit base, which need not be there in 16 bits then.
        base: what adapters stand on, where that is not what they and run folders record.

    Raises:
        UserError: a path is none of these.
    """
    found: dict[str, Artefact] = {}
    own: set[str] = set()  # of the first run folder, whose artefacts keep their short names
    problems: list[str] = []
    for path in paths:
        run = RunFolder(Path(path), base)
        try:
            inside = _of_run(run, base_4bit) if run.exists() else [_single(path, base_4bit, base)]
            held = {_place(artefact.path): artefact for artefact in inside}
        except UserError as error:
            problems += error.problems
            continue
        own = own or (set(held) if run.exists() else set())
        found |= held if run.exists() else {place: held[place] for place in held if place not in found}
    if problems:
        raise UserError(*problems)
    home = next(filter(None, (run_folder_of(Path(path)) for path in paths)), None)
    return _with_unique_names(found, own, home)


def artefact_at(path: str, artefacts: list[Artefact]) -> Artefact:
    """The one of ``artefacts`` that lies at ``path``, however that is spelled."""
    return next(artefact for artefact in artefacts if _place(artefact.path) == _place(path))


def _place(path: str) -> str:
    return str(Path(path).resolve()) if Path(path).exists() else path


def fingerprint(artefact: Artefact) -> str:
    """A short hash of what answers: of every file that its engine may read, an adapter's base too; not of its path."""
    content = [_content(path) for path in (artefact.path, artefact.base) if path]
    return hashlib.sha256("".join(content).encode()).hexdigest()[:16]


def template_of(artefact: Artefact) -> str:
    """The chat template that an artefact's engine finds; empty where there is none, or where nobody here can look."""
    if artefact.kind is Kind.GGUF:
        of_model = Path(artefact.base or artefact.path)
        return str(GgufFile(parts(of_model)[0]).value("tokenizer.chat_template") or "")
    folder, base = artefact.path, artefact.base
    if artefact.kind is Kind.ADAPTER and base:
        folder = str(with_tokenizer(Path(folder), base)) if folder_here(base) else folder
    here = folder_here(folder)
    return template_in(here) if here else ""


def check_askable(artefacts: list[Artefact], served: str = "") -> None:
    """Refuse artefacts that have no chat template to put a question into, or that transformers would misread, unless
    they are the one that a server has, ``served``.

    Raises:
        UserError: a sentence for each.
    """
    problems = Problems()
    for artefact in artefacts:
        model = artefact.base or artefact.path
        if artefact.kind is Kind.GGUF or folder_here(model):
            problems.catch(check_template, artefact.path, template_of(artefact))
            if artefact.kind is not Kind.GGUF and artefact.path != served:
                problems.catch(check_positions, local_folder(model), model)
    problems.raise_any()


def lora_rank(adapter: Path) -> int:
    """The rank of an adapter, from its adapter_config.json."""
    return int(json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))["r"])


def _content(path: str) -> str:
    """Hashes of a file and its further parts, or of a model folder's files, or the revision of a Hub repository."""
    local = Path(path)
    if local.is_dir():
        return "".join(f"{file.relative_to(local)} {file_hash(file)}" for file in files_that_answer(local))
    return revision(path) if is_remote(path) else "".join(file_hash(part) for part in parts(local))


def _of_run(run: RunFolder, base_4bit: bool) -> list[Artefact]:
    check_base(run.base_model(), "--base" if run.base else f"the base model of {run.path},")
    # What merging starts from, also where training had 4-bit weights.
    found = [Artefact("base", Kind.MODEL, run.merge_base())]
    inside = [path for path in (run.adapter, run.merged) if path.is_dir()]
    # The adapter's GGUF cannot answer where somebody has removed the base beside it to save room.
    ggufs = [file for file in ggufs_in(run.gguf) if file.name != run.adapter_gguf.name or ggufs_in(run.adapter_base)]
    return found + [_single(str(path), base_4bit, run.base) for path in [*inside, *ggufs]]


def _single(path: str, base_4bit: bool, base: str | None) -> Artefact:
    local = Path(path)
    run = run_folder_of(local)
    if is_gguf(local):
        check_gguf(local, path)
        if is_adapter_gguf(local):
            return _adapter_gguf(path, run, base)
        in_run = run is not None and run.gguf.resolve() == local.parent.resolve()
        return Artefact(gguf_name(local, in_run), Kind.GGUF, path, number_type=number_type(local))
    if local.is_dir() and is_adapter(local):
        return _adapter(path, run, base_4bit, base)
    check_model(path, option="")
    if is_remote(path) and is_adapter_repository(path):
        raise UserError(f"{path} holds an adapter: fetch it with `hf download {path} --local-dir DIR`, and name DIR")
    is_merged = run is not None and run.merged.resolve() == local.resolve()
    return Artefact("merged" if is_merged else Path(path).name or "model", Kind.MODEL, path)


def _adapter(path: str, run: RunFolder | None, base_4bit: bool, named: str | None) -> Artefact:
    local = Path(path)
    if is_full_model(local):
        raise UserError(
            f"{path} is an adapter and a full model at once: to score the model, remove adapter_config.json and "
            "adapter_model.* from it; to score the adapter, move these into a folder of their own"
        )
    check_adapter(local, path)
    base = named or (run.base_model() if run else recorded_base(local))
    option = "--base" if named else f"the base model of {path},"
    if base_4bit:
        check_model(base, option)
    else:
        check_base(base, option, ", or score it on the quantized ones with --base-4bit")
    is_another = run is not None and run.adapter.resolve() != local.resolve()  # a checkpoint, a warm start
    return Artefact(
        local.resolve().name if is_another else "adapter", Kind.ADAPTER, path,
        base if base_4bit else sixteen_bit_name(base),
    )  # fmt: skip


def _adapter_gguf(path: str, run: RunFolder | None, named: str | None) -> Artefact:
    """An adapter's GGUF, on the GGUF that the user names, or on that of gguf/base/ in its run folder."""
    local = Path(path)
    beside = [str(file) for file in ggufs_in(run.adapter_base)] if run else []
    base = named if named and is_gguf(Path(named)) else next(iter(beside), None)
    if base is None:
        raise UserError(f"{path} is an adapter alone: name a GGUF of its base with --base FILE.gguf")
    check_gguf(Path(base), base)
    in_run = run is not None and run.adapter_gguf.resolve() == local.resolve()
    name = "adapter-gguf" if in_run else gguf_name(local, in_run=False)
    return Artefact(name, Kind.GGUF, path, base, f"{number_type(Path(base)) or 'base'} + adapter")


def recorded_base(adapter: Path) -> str:
    """The base model that an adapter's adapter_config.json names.

    Raises:
        UserError: it names none.
    """
    try:
        base = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        base = None
    if not base or not isinstance(base, str):
        raise UserError(f"{adapter / ADAPTER_CONFIG} names no base model: name its folder or Hub id with --base")
    return base


def _with_unique_names(found: dict[str, Artefact], own: set[str], home: RunFolder | None) -> list[Artefact]:
    """Artefacts of the same name are told apart by their paths, and those of another run than ``home`` have theirs in
    any case: its ``merged`` must not stand for home's. A name is also the name of a file, its transcript."""

    def is_strange(place: str) -> bool:
        run = run_folder_of(Path(place))
        return run is not None and home is not None and run.path.resolve() != home.path.resolve()

    names = [artefact.name for artefact in found.values()]
    named: dict[str, Artefact] = {}
    for place, artefact in sorted(found.items(), key=lambda item: item[0] not in own):
        alone = place in own or (names.count(artefact.name) == 1 and not is_strange(place))
        name = re.sub(r"[^\w.-]+", "-", artefact.name if alone else artefact.path).strip("-.") or "model"
        number = next(n for n in range(1, len(names) + 1) if (name if n == 1 else f"{name}-{n}") not in named)
        named[name if number == 1 else f"{name}-{number}"] = artefact
    by_place = {_place(artefact.path): replace(artefact, name=name) for name, artefact in named.items()}
    return [by_place[place] for place in found]
