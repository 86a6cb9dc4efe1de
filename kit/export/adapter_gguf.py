"""gguf/NAME.adapter.gguf: the adapter alone for llama.cpp, which puts it onto a GGUF of the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.export.checks.adapter_gguf import adds_the_change
from kit.export.checks.gguf import answers_as_merged, metadata_agrees
from kit.export.evidence import Evidence
from kit.export.merge import Merged
from kit.export.record import ExportRecord
from kit.llama_cpp.adapter_gguf import convert_adapter
from kit.llama_cpp.divergence import mean_kl_divergence
from kit.llama_cpp.gguf import GgufFile, convert
from kit.llama_cpp.gguf_names import ggufs_in
from kit.models.tensors import beyond_lora, changes_head, is_tied
from kit.storage.atomic import file_hash
from kit.storage.hub import local_folder
from kit.storage.run_folder import RunFolder
from kit.storage.weight_files import ADAPTER_WEIGHTS

# llama.cpp multiplies every pair of factors by alpha / rank, whatever of this an adapter asks for.
_OTHERWISE = {
    "use_rslora": "is scaled by the root of its rank (use_rslora)",
    "alpha_pattern": "has a scale for each module (alpha_pattern)",
    "fan_in_fan_out": "has its matrices lying the other way (fan_in_fan_out)",
}


def check_adapter_gguf(adapter: Path, run: RunFolder) -> None:
    """Refuse an adapter that llama.cpp's LoRA cannot hold, before anything is made.

    Args:
        adapter: the run folder's, or one that is to get this run folder.
        run: where its GGUF will lie.

    Raises:
        UserError: with what it has that llama.cpp would drop or take for something else.
    """
    if not (adapter / ADAPTER_WEIGHTS).is_file():
        raise UserError(f"--adapter-gguf: {adapter} holds no adapter: leave the option out")
    if "," in str(run.path.resolve()):
        raise UserError(
            f"--adapter-gguf: llama.cpp takes the comma in {run.path.resolve()} for the end of a file's name: rename it"
        )
    found = beyond_lora(adapter, _OTHERWISE)
    if changes_head(adapter) and is_tied(run.merge_base()):
        found.append("changes the output head, which in this base is the embedding too")
    if found:
        raise UserError(
            f"--adapter-gguf: {adapter} {', and '.join(found)}, which llama.cpp's LoRA does not know: leave "
            "the option out, the files of --gguf hold all of it"
        )


def make_adapter_gguf(merged: Merged, record: ExportRecord, scratch: Path) -> tuple[Path, Path]:
    """(the adapter's GGUF, an f16 GGUF of its base), both in ``scratch`` and not looked at yet."""
    record.say("converting the adapter, and its base for it to stand on, to GGUF")
    base = _make_base_gguf(merged, scratch)
    file = scratch / record.run.adapter_gguf.name
    name = f"{record.run.path.resolve().name}-adapter"
    convert_adapter(record.run.adapter, _base_folder(merged, scratch), file, name)
    return file, base


def base_gguf_of(run: RunFolder) -> Path | None:
    """The GGUF of the base that a run folder holds for its adapter; the largest, where somebody put others there."""
    return next(iter(ggufs_in(run.adapter_base)), None)


def checked_base_gguf(merged: Merged, run: RunFolder, scratch: Path) -> Path:
    """The f16 GGUF of the base with which an adapter's is checked: the run folder's, or where it is gone a new one."""
    kept = run.adapter_base / _base_name(merged)
    return kept if kept.exists() else _make_base_gguf(merged, scratch)


def _base_name(merged: Merged) -> str:
    return f"{Path(merged.base).name}.f16.gguf"


def _make_base_gguf(merged: Merged, scratch: Path) -> Path:
    """With the tokenizer, the chat template and the greedy settings of merged."""
    file = scratch / _base_name(merged)
    convert(_base_folder(merged, scratch), file, "f16", Path(merged.base).name)
    return file


def _base_folder(merged: Merged, scratch: Path) -> Path:
    """The base's weights with all else that merged has, as links."""
    folder = scratch / "base"
    if folder.exists():
        return folder
    folder.mkdir()
    weights = "*.safetensors*"
    ours = [file for file in merged.folder.iterdir() if not file.match(weights)]
    for file in [*ours, *local_folder(merged.base).glob(weights)]:
        (folder / file.name).symlink_to(file.resolve())
    return folder


def verified_adapter(
    file: Path, base: Path, f16: Path, merged: Merged, record: ExportRecord, evidence: Evidence, scratch: Path
) -> dict[str, Any]:
    """The adapter's entry of export.json, once base and adapter together have passed as merged does.

    Args:
        file: the adapter's GGUF.
        base: an f16 GGUF of its base.
        f16: one of merged, from which the divergence is measured.
        merged: what the two together are to answer like.
        record: where the checks are said and kept.
        evidence: what is asked.
        scratch: for what is written meanwhile.

    Raises:
        ExportRefused: a check failed.
    """
    if record.run.has_adapter:
        record.verify(adds_the_change(file, base, record.run.adapter, merged.base))
    prompts = [messages[:-1] for messages in evidence.conversations]
    record.verify(metadata_agrees(GgufFile(base), merged.folder), answers_as_merged(base, merged.folder, prompts, file))
    (divergence,) = mean_kl_divergence(f16, [base], evidence.text, scratch, adapter=file)
    return {
        "file": file.name,
        "bytes": file.stat().st_size,
        "sha256": file_hash(file),
        "merged_sha256": merged.sha256,
        "base": {"file": f"{record.run.adapter_base.name}/{base.name}", "sha256": file_hash(base)},
        "tensor_types": GgufFile(file).tensor_types,
        "mean_kl_from_f16": divergence,
    }
