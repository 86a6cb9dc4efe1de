"""EXPORT: adapter → merged → GGUF, each written under a temporary name, passed by the gate, and only then renamed.

A kill leaves at most ``export.partial/``, which the next export removes. What has its final name has passed the gate;
export.json says with which numbers, and holds the hash of each file.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.chat_templates import fitted, template_in
from kit.cli.errors import first_line
from kit.export.checks import gate
from kit.export.checks import gguf as check_gguf
from kit.export.checks import merged as check_merged
from kit.export.checks.gate import Check, ExportRefused, with_tokenizer
from kit.export.merge import write_merged
from kit.llama_cpp.gguf import BLOCK, CONVERTED, GgufFile, convert, mean_kl_divergence, quantize, with_readable_weights
from kit.prompts import build_prompt, format_reply
from kit.storage.atomic import FULL_ERRORS, file_hash, is_full, publish, write_whole
from kit.storage.hub import local_folder, weights_bytes
from kit.storage.run_folder import RunFolder, read_jsonl
from kit.versions import installed_versions

PROMPTS_CHECKED = 16
_SPARE_BYTES = 300e6  # KL's logits and a margin
_RELATIVE_SIZE = {"f32": 2.0, "f16": 1.0, "bf16": 1.0}  # to 16-bit weights; of quantized files, at most:
_QUANTIZED_SIZE = 0.6
# Asked where a run folder has no samples.jsonl to take questions from.
_FALLBACK = [
    ("Ana has 3 apples and gets 4 more. How many now?", format_reply("3 + 4 = 7", "7")),
    ("A box holds 12 pens. How many pens are in 5 boxes?", format_reply("12 * 5 = 60", "60")),
    ("Tom had 20 euros and spent 8. How much is left?", format_reply("20 - 8 = 12", "12")),
]


class Export:
    """One export into a run folder: its record (export.json), its checks, and the temporary folder.

    Args:
        run: the run folder.
        say: called with a line for each thing that is done.
    """

    def __init__(self, run: RunFolder, say=print) -> None:
        self.run, self._say = run, say
        self.base = run.merge_base()
        self.partial = run.unfinished_export
        self.record: dict[str, Any] = {"gguf": {}, "checks": {}}
        if run.export_file.exists():
            self.record |= json.loads(run.export_file.read_text(encoding="utf-8"))
        conversations = self._conversations()
        self.text = "\n\n".join("\n".join(message["content"] for message in talk[-2:]) for talk in conversations)
        self.conversations = conversations[:PROMPTS_CHECKED]

    def _conversations(self) -> list[list[dict[str, str]]]:
        """The last reply in samples.jsonl to each of its questions: the kind of text that the model is for."""
        prompt = self.run.read()["system_prompt"]
        replies = {line["question"]: line["reply"] for line in read_jsonl(self.run.samples_file)}
        pairs = list(replies.items()) or _FALLBACK
        template = template_in(self._tokenizer())
        return [
            [*fitted(build_prompt(question, prompt), template), {"role": "assistant", "content": reply}]
            for question, reply in pairs
        ]

    def _tokenizer(self) -> Path:
        """The folder that has the tokenizer of training."""
        return with_tokenizer(self.run.adapter, self.base) if self.run.has_adapter else local_folder(self.base)

    @contextmanager
    def staging(self) -> Iterator[None]:
        """The temporary folder while the ``with`` block runs; it is gone afterwards, whatever happens.

        Raises:
            ExportRefused: the disk filled up.
        """
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir()
        try:
            yield
        except ExportRefused:
            raise
        except Exception as error:  # each library has its own way to say that the disk is full
            if not is_full(self.run.path) and getattr(error, "errno", None) not in FULL_ERRORS:
                raise
            raise ExportRefused(
                f"the disk of {self.run.path} is full ({type(error).__name__}): make room and run the command again"
            ) from error
        finally:
            shutil.rmtree(self.partial, ignore_errors=True)

    def merge(self) -> None:
        """Write merged/, if the gate lets it pass.

        Raises:
            ExportRefused: a check failed; nothing is left under the final name.
        """
        self._pass(check_merged.adapter_is_trained(self.run.adapter))
        self._say(f"merging {self.run.adapter} into the 16-bit weights of {self.base}")
        merged = self.partial / "merged"
        try:
            write_merged(self.run.adapter, self.base, merged)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:  # PEFT's own words for what does not fit
            raise ExportRefused(
                f"{self.run.adapter} cannot be merged into {self.base}, PEFT says: {first_line(error)}"
            ) from error
        self.check_merged(merged)
        publish(merged, self.run.merged)

    def check_merged(self, merged: Path | None = None) -> None:
        """Pass a merged folder, the run's own where none is given, by the gate.

        Raises:
            ExportRefused: a check failed.
        """
        merged = merged or self.run.merged
        self._pass(check_merged.tokens_agree(merged, self._tokenizer()))
        if self.run.has_adapter:
            self._pass(check_merged.weights_agree(merged, self.run.adapter, self.base))
            self._pass(check_merged.says_the_same(merged, self.run.adapter, self.base, self.conversations))
        self.record["merged"] = {"base": self.base, "sha256": _weights_hash(merged)}

    def gguf(self, kinds: list[str]) -> None:
        """Write gguf/NAME.<kind>.gguf for each kind, if the gate lets them pass.

        Raises:
            ExportRefused: a check failed; none of the new files has its final name.
        """
        name = self.run.path.resolve().name
        f16 = self._f16()
        made: dict[str, Path] = {}
        for number, kind in enumerate(kinds, 1):
            self._say(f"exporting {kind} ({number} of {len(kinds)})")
            made[kind] = f16 if kind == "f16" else self.partial / f"{name}.{kind}.gguf"
            if kind in CONVERTED and kind != "f16":
                convert(self.run.merged, made[kind], kind, name)
            elif kind != "f16":
                quantize(f16, made[kind], kind)
        entries = self.check_gguf(made, f16)
        self.run.gguf.mkdir(exist_ok=True)
        for kind, file in made.items():
            publish(file, self.run.gguf_file(kind))
        self.record["gguf"] = self._kept(made) | entries

    def check_gguf(self, files: dict[str, Path], f16: Path | None = None) -> dict[str, Any]:
        """Pass GGUF files by the gate, f16's replies among it; returns their entries of export.json by kind.

        Raises:
            ExportRefused: a check failed.
        """
        f16 = f16 or files.get("f16") or self._f16()
        prompts = [messages[:-1] for messages in self.conversations]
        checks = [check_gguf.answers_as_merged(f16, self.run.merged, prompts)]
        readers = {kind: GgufFile(file) for kind, file in files.items()}

        def distances(file: Path) -> tuple[float | None, float | None]:
            of_base = self.partial / "base.f16.gguf"
            convert(local_folder(self.base), of_base, "f16", "base")
            (from_f16,), (from_base,) = (
                mean_kl_divergence(other, [file], self.text, self.partial) for other in (f16, of_base)
            )
            return from_f16, from_base

        for gguf in readers.values():
            checks.append(check_gguf.metadata_agrees(gguf, self.run.merged))
            readable = with_readable_weights(gguf, self.partial)
            checks.append(check_gguf.carries_training(gguf, readable, self.run.merged, self.base, distances))
        self._pass(*checks)
        divergences = mean_kl_divergence(f16, list(files.values()), self.text, self.partial)
        return {
            kind: self._describe(kind, gguf, divergence)
            for (kind, gguf), divergence in zip(readers.items(), divergences, strict=True)
        }

    def check(self) -> None:
        """Pass what the run folder holds by the gate, adapter, merged and GGUF files.

        Raises:
            ExportRefused: a check failed.
        """
        if self.run.has_adapter:
            self._pass(check_merged.adapter_is_trained(self.run.adapter))
        self.check_merged()
        held = {file.name.split(".")[-2]: file for file in sorted(self.run.gguf.glob("*.gguf"))}
        self.record["gguf"] = self.check_gguf(held) if held else {}

    def finish(self) -> None:
        """Write export.json, the last thing that an export writes."""
        self.record["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.record["versions"] = installed_versions()
        write_whole(self.run.export_file, json.dumps(self.record, indent=2, ensure_ascii=False) + "\n")

    def _f16(self) -> Path:
        self._say("converting merged to an f16 GGUF")
        name = self.run.path.resolve().name
        file = self.partial / f"{name}.f16.gguf"
        convert(self.run.merged, file, "f16", name)
        return file

    def _kept(self, made: dict[str, Path]) -> dict[str, Any]:
        """Entries of files from earlier exports of the same merged weights; files of other weights are removed."""
        kept = {}
        for kind, entry in self.record["gguf"].items():
            file = self.run.gguf / entry["file"]
            if kind in made or not file.exists():
                continue
            if entry["merged_sha256"] == self.record["merged"]["sha256"]:
                kept[kind] = entry
            elif file_hash(file) == entry["sha256"]:
                self._say(f"removing {file}: it was made from an earlier merge")
                file.unlink()
        return kept

    def _describe(self, kind: str, gguf: GgufFile, divergence: float | None) -> dict[str, Any]:
        entry = {
            "file": self.run.gguf_file(kind).name,
            "bytes": gguf.path.stat().st_size,
            "sha256": file_hash(gguf.path),
            "merged_sha256": self.record["merged"]["sha256"],
            "bits_per_weight": round(gguf.bits_per_weight, 3),
            "tensor_types": gguf.tensor_types,
            "mean_kl_from_f16": divergence,
        }
        odd, matrices = gguf.rows_not_in_blocks
        if odd and ("_k" in kind or kind.startswith(("iq", "tq"))) and kind != "iq4_nl":
            entry["note"] = (
                f"{odd} of {matrices} matrices have rows that {BLOCK} does not divide and fell back to larger types"
            )
        return entry

    def _pass(self, *checks: Check) -> None:
        for check in checks:
            self._say(f"  {'ok     ' if check.passed else 'REFUSED'} {check.of}, {check.name}: {check.says}")
            result = {"passed": check.passed, "says": check.says, **check.numbers}
            self.record["checks"].setdefault(check.of, {})[check.name] = result
        gate.refuse_failed(list(checks))


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


def _weights_hash(folder: Path) -> str:
    return "-".join(file_hash(file)[:16] for file in sorted(folder.glob("*.safetensors")))
