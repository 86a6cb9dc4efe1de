"""An adapter from elsewhere gets a run folder, so that export and scores take it as they take one of this kit's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.generation.artefacts import Artefact, Kind, check_askable, recorded_base
from kit.prompts import default_system_prompt
from kit.settings.knobs import KNOBS
from kit.storage.atomic import file_hash, replace_whole
from kit.storage.hub import check_base
from kit.storage.run_folder import RunFolder, run_folder_of
from kit.storage.run_lock import LOCK
from kit.storage.weight_files import check_adapter, files_that_answer, is_models

_FOR_SCORES = ("max_prompt_length", "max_completion_length", "decimal_mark")  # what evaluate.py reads of a run
_WEIGHTS = "adapter_model.safetensors"
_NOT_ITS_OWN = ("trainer_state.json", "config.json", "model.safetensors.index.json")
_TRAINERS_OWN = (".pt", ".pth", ".bin")  # optimizer and random state in a checkpoint


def check_adoption(adapter: Path, base: str | None, output: Path | None) -> RunFolder:
    """The run folder that an adapter of another tool, or a checkpoint of a run, would get; nothing is written.

    Args:
        adapter: a folder with adapter_config.json and adapter_model.safetensors.
        base: the folder or Hub id of its base, where what the adapter records is not meant.
        output: the run folder that it is to have.

    Raises:
        UserError: with the reason and the remedy.
    """
    check_adapter(adapter, str(adapter))
    if output is None:
        inside = run_folder_of(adapter)
        own = f"name its run folder, {inside.path}, or " if inside else ""
        raise UserError(f"{adapter} is an adapter: {own}say where its export goes with --output-dir DIR")
    named = base or _base_of(adapter)
    check_base(named, "--base" if base else f"the base model of {adapter},")
    run = RunFolder(output, named)
    if run.exists() and not _is_adopted(run, adapter):
        raise UserError(f"--output-dir {output} holds another run: name a folder that is not there yet")
    if (
        not run.exists()
        and output.exists()
        and (not output.is_dir() or any(path.name != LOCK for path in output.iterdir()))
    ):
        raise UserError(f"--output-dir {output} holds something else: name a folder that is not there yet")
    check_askable([Artefact("adapter", Kind.ADAPTER, str(adapter), named)])
    return run


def adopt(adapter: Path, run: RunFolder) -> None:
    """Copy an adapter into a run folder of its own, which is there at once: a kill leaves no half of one. In one that
    is there, an adapter whose files were mended since takes the place of the copy."""
    record = _record_of(adapter, run)
    partial = run.path.with_name(f".{run.path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in _own_files(adapter):
        copy = partial / "adapter" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(adapter / name, copy)
    if not run.exists():
        RunFolder(partial).write(record)
        replace_whole(partial, run.path)
        return
    if _hashes(partial / "adapter") != _hashes(run.adapter):
        print(f"{adapter} is another than the copy in {run.path}: copied again")
        replace_whole(partial / "adapter", run.adapter)
    shutil.rmtree(partial)
    run.write(record)


def _own_files(adapter: Path) -> list[Path]:
    """What belongs to an adapter of all that lies in its folder, where trainers leave their state and some a model."""
    return [
        file.relative_to(adapter)
        for file in files_that_answer(adapter)
        if file.suffix not in _TRAINERS_OWN and file.name not in _NOT_ITS_OWN and not is_models(file)
    ]


def _hashes(folder: Path) -> dict[str, str]:
    return {str(name): file_hash(folder / name) for name in _own_files(folder)}


def _record_of(adapter: Path, run: RunFolder) -> dict[str, Any]:
    inside = run_folder_of(adapter)
    known = inside.read() if inside else {}
    settings = {name: known.get("settings", {}).get(name, KNOBS[name].default) for name in _FOR_SCORES}
    prompt = known.get("system_prompt") or default_system_prompt()
    record: dict[str, Any] = {
        "adopted": str(adapter.resolve()), "settings": {"model": run.base_model(), **settings}, "system_prompt": prompt,
    }  # fmt: skip
    if "task" in known:
        record["task"] = known["task"]
        record["settings"]["task"] = known["settings"]["task"]
    return record


def _base_of(adapter: Path) -> str:
    inside = run_folder_of(adapter)
    return inside.base_model() if inside else recorded_base(adapter)


def _is_adopted(run: RunFolder, adapter: Path) -> bool:
    """From this folder, or with these weights, wherever they lay then."""
    mine, known = run.adapter / _WEIGHTS, run.read().get("adopted")
    same = mine.is_file() and file_hash(mine) == file_hash(adapter / _WEIGHTS)
    return known is not None and (known == str(adapter.resolve()) or same)
