"""The run folder: one path that is enough for every later script. This file alone knows what lies where in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kit.cli.errors import UserError, of_unreadable
from kit.storage.atomic import write_whole
from kit.storage.hub import sixteen_bit_name
from kit.storage.weight_files import ADAPTER_WEIGHTS

_DEEPEST = 3  # folders down from a run folder, as gguf/base/x.gguf is
ADAPTER_KIND = "adapter"  # of a GGUF file, where others have the type of their weights


@dataclass(frozen=True)
class RunFolder:
    """``runs/NAME``: settings, adapter, logs, merged weights, GGUF files, scores.

    ``base`` stands in for the base model that run.yaml records, where the user names another place of it.
    """

    path: Path
    base: str | None = None

    @property
    def settings_file(self) -> Path:
        return self.path / "run.yaml"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def has_adapter(self) -> bool:
        """Does it hold a whole adapter? That gets its name when all of it is written: at the end of a training.

        Raises:
            UserError: the disk does not say.
        """
        return is_there(self.adapter / ADAPTER_WEIGHTS)

    @property
    def adapter_changes_nothing(self) -> bool:
        """Is the adapter the untrained one, because no step of the training answered better than the base?"""
        kept = self.read().get("adapter", {}) if self.has_adapter else {}
        return kept.get("step") == 0 and "warm_start" not in kept

    @property
    def merged(self) -> Path:
        return self.path / "merged"

    @property
    def gguf(self) -> Path:
        return self.path / "gguf"

    @property
    def export_file(self) -> Path:
        return self.path / "export.json"

    def holds_as_export(self, path: Path) -> bool:
        """Is ``path`` its merged weights or one of its GGUF files?"""
        place = path.resolve()
        return bool({self.merged.resolve(), self.gguf.resolve()} & {place, place.parent})

    def exported(self) -> dict[str, Any]:
        """What export.json holds; nothing where there was no export.

        Raises:
            UserError: it is broken.
        """
        if not self.export_file.exists():
            return {}
        try:
            content = json.loads(self.export_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict):
            raise UserError(f"{self.export_file} is broken: remove it, and export again with merge_and_export.py")
        return content

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def unfinished_checkpoint(self) -> Path:
        """Where the trainer writes a checkpoint until it is whole."""
        return self.checkpoints / ".partial"

    @property
    def unfinished_adapter(self) -> Path:
        return self.path / "adapter.partial"

    @property
    def unfinished_export(self) -> Path:
        return self.path / "export.partial"

    @property
    def warm_start(self) -> Path:
        """The adapter after its warm start, with which GRPO began; there is one when all of it is written."""
        return self.path / "warm_start"

    @property
    def warm_start_file(self) -> Path:
        """What was seen and decided before the first step."""
        return self.path / "warm_start.json"

    @property
    def warm_start_replies(self) -> Path:
        return self.path / "warm_start.jsonl"

    @property
    def screen_file(self) -> Path:
        """Which questions are trained on, where they were screened."""
        return self.path / "screen.json"

    @property
    def screen_answers(self) -> Path:
        return self.path / "screen.jsonl"

    @property
    def trained_on_file(self) -> Path:
        """A mark of each question that is trained on."""
        return self.path / "trained_on.txt"

    @property
    def held_out(self) -> Path:
        """The replies of each held-out score, a file a step."""
        return self.path / "held_out"

    @property
    def best(self) -> Path:
        """The adapters of the best held-out scores so far, a folder a step; emptied when the run ends by itself."""
        return self.path / "best"

    def best_adapter(self, step: int) -> Path:
        """Where the adapter of a step is kept that may turn out to be the best."""
        return self.best / f"step-{step}"

    @property
    def model_card(self) -> Path:
        return self.path / "README.md"

    @property
    def modelfile(self) -> Path:
        return self.gguf / "Modelfile"

    @property
    def adapter_gguf(self) -> Path:
        """The adapter alone, for llama.cpp."""
        return self.gguf_file(ADAPTER_KIND)

    @property
    def adapter_base(self) -> Path:
        """A folder with the GGUF of the base that the adapter's GGUF stands on."""
        return self.gguf / "base"

    @property
    def adapter_modelfile(self) -> Path:
        return self.gguf / "Modelfile.adapter"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def samples_file(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def scores_file(self) -> Path:
        return self.path / "scores.json"

    @property
    def transcripts(self) -> Path:
        return self.path / "transcripts"

    @property
    def report_file(self) -> Path:
        return self.path / "report.html"

    def steps(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, one a step; that of step 0, the base's held-out score, is left out."""
        return [row for row in read_jsonl(self.metrics_file) if row["step"]]

    @property
    def last_step(self) -> int:
        """The last step that metrics.jsonl has; 0 before the first."""
        return max((int(row["step"]) for row in self.steps()), default=0)

    def gguf_file(self, quantization: str) -> Path:
        """Where the GGUF of one type goes: ``gguf/NAME.<type>.gguf``."""
        return self.gguf / f"{self.path.resolve().name}.{quantization}.gguf"

    def exists(self) -> bool:
        """Is this a run folder, that is, does it hold a run.yaml?

        Raises:
            UserError: the disk does not say.
        """
        return is_there(self.settings_file)

    def read(self) -> dict[str, Any]:
        """What run.yaml holds.

        Raises:
            UserError: there is none, or it does not parse.
        """
        try:
            content = yaml.safe_load(self.settings_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{self.path} is no run folder (it has no run.yaml): name one that train_lora.py made"
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{self.settings_file} does not parse ({error}): mend it or train again") from None
        if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
            raise UserError(f"{self.settings_file} holds no settings: mend it or train again")
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Write run.yaml, in the order given."""
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
        write_whole(self.settings_file, text)

    def base_model(self) -> str:
        """The model that this run started from: ``base`` where it is given, else the folder or Hub id in run.yaml.

        A base folder that moved together with the run folder is found beside it.
        """
        if self.base:
            return self.base
        model = self.read()["settings"]["model"]
        beside = self.path.resolve().parent / Path(model).name
        has_moved = not Path(model).exists() and (beside / "config.json").is_file()  # no run of that name
        return str(beside) if has_moved else model

    def merge_base(self) -> str:
        """The 16-bit weights that merging starts from, also where training had 4-bit ones."""
        return sixteen_bit_name(self.base_model())


def is_there(path: Path) -> bool:
    """Is there a file or folder?

    Raises:
        UserError: the disk does not say, as a mounted Drive does not that went away, or may not: not what a missing
            file is.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(of_unreadable(path, error)) from None
    return True


def run_folder_of(path: Path) -> RunFolder | None:
    """The run folder that ``path`` is, or lies in (as ``adapter/`` and ``gguf/x.gguf`` do); ``None`` elsewhere."""
    # What is not there may be a Hub id, which lies nowhere, whatever the working directory lies in.
    whole = Path(os.path.abspath(path)) if path.exists() else path  # noqa: PTH100 - a link lies where it is
    for place in (whole, *whole.parents[:_DEEPEST]):
        if RunFolder(place).exists():
            shown = place if path.is_absolute() else Path(os.path.relpath(place))
            return RunFolder(place if ".." in shown.parts else shown)
    return None


def append_jsonl(path: Path, *rows: Mapping[str, Any]) -> None:
    """Append rows to a JSON Lines file and flush them to disk."""
    with path.open("a", encoding="utf-8") as handle:
        handle.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; one that a kill cut short is left out. No file, no rows."""
    if not path.exists():
        return []
    rows = []
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(ValueError):
            rows.append(json.loads(text))
    return [row for row in rows if isinstance(row, dict)]
