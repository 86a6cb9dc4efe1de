"""gguf/: files for llama.cpp, made from a merged folder that has passed, under their names once they pass too."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from kit.export.adapter_gguf import checked_base_gguf, make_adapter_gguf, verified_adapter
from kit.export.calibration import calibrate
from kit.export.checks.check import ExportRefused
from kit.export.checks.gguf import answers_as_merged, carries_training, metadata_agrees
from kit.export.checks.rounding import is_f16_rounded
from kit.export.evidence import Evidence
from kit.export.merge import Merged
from kit.export.record import ExportRecord
from kit.llama_cpp.divergence import mean_kl_divergence
from kit.llama_cpp.gguf import BLOCK, CONVERTED, GgufFile, convert, quantize, with_readable_weights
from kit.llama_cpp.imatrix import UNCHANGED, matrix_used_in
from kit.storage.atomic import file_hash, replace_whole
from kit.storage.hub import local_folder
from kit.storage.run_folder import ADAPTER_KIND


def make_ggufs(
    merged: Merged,
    kinds: list[str],
    record: ExportRecord,
    evidence: Evidence,
    scratch: Path,
    with_imatrix: bool = False,
) -> dict[str, list[str]]:
    """Write gguf/NAME.<kind>.gguf for each kind that passes; by an importance matrix where one is asked for.

    The kind ``adapter`` is the adapter alone, and an f16 GGUF of the base in gguf/base/ besides.

    Returns:
        Why the other kinds have not passed, in sentences; what gguf/ held of them stays as it was.

    Raises:
        ExportRefused: f16 does not answer as merged does, or no kind has passed; nothing new has its final name.
    """
    run, name = record.run, record.run.path.resolve().name
    f16 = _f16(merged, record, scratch)
    imatrix = None
    if with_imatrix:
        record.say("reading training questions and their replies for the importance matrix")
        imatrix = calibrate(evidence, merged.folder, f16, scratch)
    made: dict[str, Path] = {}
    adapter = make_adapter_gguf(merged, record, scratch) if ADAPTER_KIND in kinds else None
    kinds = [kind for kind in kinds if kind != ADAPTER_KIND]
    for number, kind in enumerate(kinds, 1):
        record.say(f"exporting {kind} ({number} of {len(kinds)})")
        made[kind] = f16 if kind == "f16" else scratch / f"{name}.{kind}.gguf"
        if kind in CONVERTED and kind != "f16":
            convert(merged.folder, made[kind], kind, name)
        elif kind != "f16":
            quantize(f16, made[kind], kind, None if kind in UNCHANGED else imatrix)
    entries, refused = _verified(made, f16, merged, record, evidence, scratch)
    if adapter:
        made[ADAPTER_KIND], base = adapter
        try:
            entries[ADAPTER_KIND] = verified_adapter(*adapter, f16, merged, record, evidence, scratch)
            run.adapter_base.mkdir(parents=True, exist_ok=True)
            replace_whole(base, run.adapter_base / base.name)
        except ExportRefused as error:
            refused[ADAPTER_KIND] = list(error.problems)
    if not entries:
        raise ExportRefused(*chain.from_iterable(refused.values()))
    run.gguf.mkdir(exist_ok=True)
    passed = {kind: made[kind] for kind in entries}
    kept = _kept(passed, merged, record)
    for kind, file in passed.items():
        replace_whole(file, run.gguf_file(kind))
    record.content["gguf"] = kept | entries
    return refused


def check_ggufs(merged: Merged, record: ExportRecord, evidence: Evidence, scratch: Path) -> None:
    """Pass the GGUF files that a run folder holds by the checks again.

    Raises:
        ExportRefused: a check failed.
    """
    held, others = _held(record)
    adapter = held.pop(ADAPTER_KIND, None)
    entries: dict[str, Any] = {}
    if held or adapter:
        is_measure = "f16" in held and "f16" not in others and _is_of(merged, record.ggufs.get("f16", {}))
        f16 = held["f16"] if is_measure else _f16(merged, record, scratch)
        entries, refused = _verified(held, f16, merged, record, evidence, scratch)
        if refused:
            raise ExportRefused(*chain.from_iterable(refused.values()))
    if adapter:
        base = checked_base_gguf(merged, record.run, scratch)
        entries[ADAPTER_KIND] = verified_adapter(adapter, base, f16, merged, record, evidence, scratch)
    record.content["gguf"] = entries


def _held(record: ExportRecord) -> tuple[dict[str, Path], set[str]]:
    """The run's GGUF files by kind, of two of a kind that of export.json; and the kinds of which the file is no longer
    the one that was exported."""
    exported = {entry["file"] for entry in record.ggufs.values()}
    files = sorted(record.run.gguf.glob("*.gguf"), key=lambda file: file.name in exported)  # the last of a kind counts
    held = {file.name.split(".")[-2]: file for file in files}
    for file in sorted({*files} - {*held.values()}):
        record.say(f"{file.name} is not looked at: it is no file of this export")
    others = {kind for kind in {*held} & {*record.ggufs} if file_hash(held[kind]) != record.ggufs[kind]["sha256"]}
    for kind in sorted(others):
        record.say(f"{held[kind].name} is not the file that was exported: its sha256 is another")
    return held, others


def _is_of(merged: Merged, entry: dict[str, Any]) -> bool:
    """Was the GGUF of an entry of export.json made from these weights?"""
    return bool(entry.get("merged_sha256") == merged.sha256)


def _f16(merged: Merged, record: ExportRecord, scratch: Path) -> Path:
    record.say("converting merged to an f16 GGUF")
    name = record.run.path.resolve().name
    file = scratch / f"{name}.f16.gguf"
    convert(merged.folder, file, "f16", name)
    return file


def _verified(
    files: dict[str, Path], f16: Path, merged: Merged, record: ExportRecord, evidence: Evidence, scratch: Path
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The entries of export.json of those files that pass, by kind, and why the others do not.

    Raises:
        ExportRefused: f16 does not answer as merged does, so that no file can.
    """
    if not files:
        return {}, {}
    prompts = [messages[:-1] for messages in evidence.conversations]
    of_all = record.take(answers_as_merged(files.get("f16", f16), merged.folder, prompts))
    readers, of_f16 = {kind: GgufFile(file) for kind, file in files.items()}, GgufFile(f16)

    def distances(file: Path) -> tuple[float | None, float | None]:
        of_base = scratch / "base.f16.gguf"
        convert(local_folder(merged.base), of_base, "f16", "base")
        (from_f16,), (from_base,) = (
            mean_kl_divergence(other, [file], evidence.text, scratch) for other in (f16, of_base)
        )
        return from_f16, from_base

    refused: dict[str, list[str]] = {}
    for kind, gguf in list(readers.items()):
        checks = [metadata_agrees(gguf, merged.folder, of_f16)]
        readable = with_readable_weights(gguf, scratch)
        if files[kind] != f16:
            checks.append(is_f16_rounded(gguf, readable, of_f16))
        checks.append(carries_training(gguf, readable, merged.folder, merged.base, distances))
        if failed := record.take(*checks):
            refused[kind] = failed
            del readers[kind]
    if of_all:
        raise ExportRefused(*of_all, *chain.from_iterable(refused.values()))
    divergences = mean_kl_divergence(f16, [files[kind] for kind in readers], evidence.text, scratch)
    return {
        kind: _entry(kind, gguf, divergence, merged)
        for (kind, gguf), divergence in zip(readers.items(), divergences, strict=True)
    }, refused


def _kept(made: dict[str, Path], merged: Merged, record: ExportRecord) -> dict[str, Any]:
    """Entries of files from earlier exports of the same merged weights. Those of other weights, or of a type that is
    made now under the run's new name, are removed: beside the new ones they would be taken for theirs."""
    kept = {}
    for kind, entry in record.ggufs.items():
        file = record.run.gguf / entry["file"]
        if not file.exists() or (kind in made and file == record.run.gguf_file(kind)):
            continue
        if kind not in made and _is_of(merged, entry):
            kept[kind] = entry
        elif file_hash(file) == entry["sha256"]:  # else somebody has put another in its place
            why = "the run had another name then" if kind in made else "it was made from an earlier merge"
            record.say(f"removing {file}: {why}")
            file.unlink()
            record.content["checks"].pop(file.name, None)
    return kept


def _entry(kind: str, gguf: GgufFile, divergence: float | None, merged: Merged) -> dict[str, Any]:
    entry = {
        "file": gguf.path.name,
        "bytes": gguf.path.stat().st_size,
        "sha256": file_hash(gguf.path),
        "merged_sha256": merged.sha256,
        "bits_per_weight": round(gguf.bits_per_weight, 3),
        "tensor_types": gguf.tensor_types,
        "mean_kl_from_f16": divergence,
    }
    if used := matrix_used_in(gguf):
        entry["imatrix"] = asdict(used)
    odd, matrices = gguf.rows_not_in_blocks
    if odd and ("_k" in kind or kind.startswith(("iq", "tq"))) and kind != "iq4_nl":
        types = ", ".join(f"{count} {name}" for name, count in gguf.tensor_types.items() if name != "f32")
        entry["note"] = (
            f"{odd} of {matrices} matrices have rows that {BLOCK} does not divide and fell back to larger types, so "
            f"that it holds {types}"
        )
    return entry
