"""merged/: made, or taken as it is, and in both cases only once it has passed its checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kit.cli.errors import first_line
from kit.export.checks.check import ExportRefused
from kit.export.checks.merged import adapter_is_trained, says_the_same, tokens_agree, weights_agree
from kit.export.evidence import Evidence
from kit.export.merge_weights import write_merged
from kit.export.record import ExportRecord
from kit.models.adapter_fit import check_embedding
from kit.models.merged_tensors import PEFT_ERRORS
from kit.models.tensors import with_tokenizer
from kit.storage.atomic import file_hash, replace_whole
from kit.storage.hub import local_folder
from kit.storage.weight_files import ADAPTER_WEIGHTS


@dataclass(frozen=True)
class Merged:
    """A merged folder that has passed: what GGUF files are made from.

    Args:
        folder: Hugging Face's form.
        base: folder or Hub id of the 16-bit weights that the adapter was merged into.
        sha256: of each file of its weights the first 16 digits, joined by ``-``.
    """

    folder: Path
    base: str
    sha256: str


def merge(record: ExportRecord, evidence: Evidence, scratch: Path) -> Merged:
    """Write merged/, if it passes.

    Raises:
        ExportRefused: a check failed; nothing is left under the final name.
        UserError: the adapter does not go with its base, or no merge can be what it is.
    """
    run, base = record.run, record.run.merge_base()
    record.verify(adapter_is_trained(run.adapter))
    check_embedding(run.adapter, base)
    record.say(f"merging {run.adapter} into the 16-bit weights of {base}")
    folder = scratch / "merged"
    try:
        write_merged(run.adapter, base, folder)
    except PEFT_ERRORS as error:
        raise ExportRefused(f"{run.adapter} cannot be merged into {base}, PEFT says: {first_line(error)}") from error
    _verify(folder, record, evidence)
    replace_whole(folder, run.merged)
    return _passed(record)


def merged_as_it_is(record: ExportRecord, evidence: Evidence) -> Merged:
    """The run's merged folder, if it passes.

    Raises:
        ExportRefused: a check failed.
    """
    _verify(record.run.merged, record, evidence)
    return _passed(record)


def _verify(folder: Path, record: ExportRecord, evidence: Evidence) -> None:
    run, base = record.run, record.run.merge_base()
    if not run.has_adapter:
        record.verify(tokens_agree(folder, local_folder(base)))
        return
    record.verify(tokens_agree(folder, with_tokenizer(run.adapter, base)))
    record.verify(weights_agree(folder, run.adapter, base))
    record.verify(says_the_same(folder, run.adapter, base, evidence.conversations))


def _passed(record: ExportRecord) -> Merged:
    run = record.run
    sha256 = "-".join(file_hash(file)[:16] for file in sorted(run.merged.glob("*.safetensors")))
    before = record.content.get("merged") or {}
    record.content["merged"] = {"base": run.merge_base(), "sha256": sha256}
    if not run.has_adapter and before.get("sha256") == sha256 and "adapter_sha256" in before:
        record.content["merged"]["adapter_sha256"] = before["adapter_sha256"]  # of which it still is
    if run.has_adapter:
        record.content["merged"]["adapter_sha256"] = file_hash(run.adapter / ADAPTER_WEIGHTS)
    return Merged(run.merged, run.merge_base(), sha256)


def check_again(record: ExportRecord, evidence: Evidence) -> Merged:
    """Pass a run's adapter and merged folder by the checks.

    Raises:
        ExportRefused: a check failed.
    """
    if record.run.has_adapter:
        record.verify(adapter_is_trained(record.run.adapter))
    return merged_as_it_is(record, evidence)
