"""What the page says in numbers and words: how far a run is, what it earned, a few of its completions."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from kit.report.held_out_chart import HeldOutScore
from kit.report.replies import ReplySet
from kit.storage.run_folder import RunFolder
from kit.storage.run_rows import policy_of

_PAIRS = 3
_STEP = re.compile(rb'\{"step": \d+')  # as RolloutBatch.samples writes them


def state(run: RunFolder, record: dict[str, Any], done: int) -> str:
    """How far the run is, and whose adapter it has.

    Args:
        run: its folder.
        record: what run.yaml holds.
        done: the last step that was written down.
    """
    if "adopted" in record:
        return "trained elsewhere"
    if not run.has_adapter:
        return f"step {done} of {record.get('settings', {}).get('max_steps', 0)}"
    finished = f"finished after {done} steps"
    kept = {"step": done} | record.get("adapter", {})
    if kept["step"] == done:
        return finished
    the = "" if kept["step"] else "the "
    return f"{finished}, its adapter is that of {the}{policy_of(kept)}, whose held-out answers were better"


def numbers(
    rows: list[dict[str, Any]], points: list[HeldOutScore], record: dict[str, Any], adapter: dict[str, Any]
) -> list[tuple[str, str]]:
    """(what, its value): of the steps, of the held-out scores, of the warm start.

    Args:
        rows: of the steps.
        points: of ``held_out_scores``.
        record: what run.yaml holds.
        adapter: what it says of the adapter that the run has; nothing where it has none yet.
    """
    return _of_held_out(points, adapter) + _of_steps(rows) + _of_warm_start(record)


def samples(run: RunFolder) -> list[dict[str, Any]]:
    """The best- and the worst-paid completion of an early, a middle and a late step."""
    by_step = _lines_by_step(run.samples_file)
    if not by_step:
        return []
    steps = list(by_step)
    chosen = []
    for step in dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1])):
        of_step = sorted(_read(by_step[step]), key=lambda s: sum(v or 0 for v in s["rewards"].values()))
        chosen += [of_step[-1], of_step[0]] if len(of_step) > 1 else of_step
    return [
        {
            "step": sample["step"],
            "question": sample["question"],
            "gold": sample["gold"],
            "reply": sample["reply"],
            "paid": ", ".join(f"{name} {value:g}" for name, value in sample["rewards"].items() if value is not None),
        }
        for sample in chosen
    ]


def examples(replies: ReplySet) -> list[dict[str, Any]]:
    """Three questions that two rows answered, for who has no script: one won, one lost, one neither."""
    pairs = replies.pairs()
    won = [pair for pair in pairs if pair[1]["strict"] and not pair[0]["strict"]]
    lost = [pair for pair in pairs if pair[0]["strict"] and not pair[1]["strict"]]
    same = [pair for pair in pairs if pair[0]["strict"] == pair[1]["strict"]]
    names = (replies.names[replies.before], replies.names[replies.after])
    return [
        {
            "question": before["question"],
            "gold": before["gold"],
            "replies": [
                {"name": name, "right": line["strict"], "text": line["reply"]}
                for name, line in zip(names, (before, after), strict=True)
            ],
        }
        for before, after in [*won[:1], *lost[:1], *same[:1]][:_PAIRS]
    ]


def _lines_by_step(file: Path) -> dict[bytes, list[bytes]]:
    """The lines of samples.jsonl by the step that they begin with, not yet read: a long run has tens of megabytes of
    them, and the page shows six."""
    found: dict[bytes, list[bytes]] = {}
    for line in file.read_bytes().split(b"\n") if file.exists() else []:
        found.setdefault(line[: line.find(b",")], []).append(line)
    return {begin: lines for begin, lines in found.items() if _STEP.fullmatch(begin)}


def _read(lines: list[bytes]) -> list[dict[str, Any]]:
    """The rows; one that a kill cut short is left out."""
    rows = []
    for line in lines:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def _of_steps(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    if not rows:
        return []
    few = max(1, min(5, len(rows) // 2))

    def from_to(name: str, form: str) -> str:
        ends = [[row[name] for row in part if row.get(name) is not None] for part in (rows[:few], rows[-few:])]
        return " → ".join(format(sum(part) / len(part), form) if part else "?" for part in ends)

    hours = sum(row.get("seconds") or 0 for row in rows) / 3600
    return [
        ("reward", from_to("reward", ".2f")),
        ("in format", from_to("format_rate", ".0%")),
        ("correct while training", from_to("correct_rate", ".0%")),
        ("tokens a completion", from_to("completion_length", ".0f")),
        ("time in steps", f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"),
    ]


def _of_held_out(points: list[HeldOutScore], adapter: dict[str, Any]) -> list[tuple[str, str]]:
    """From the base to the adapter that the run has; until it has one, and where nobody asked it, to the last look."""
    if not points:
        return []
    kept = policy_of(adapter) if "step" in adapter else ""
    shown = next((point for point in points if point.of == kept), points[-1])
    return [
        (
            f"held out, {name}, {points[0].of} to {shown.of}",
            " → ".join(f"{point.score[name]['accuracy']:.0%}" for point in (points[0], shown)),
        )
        for name in ("strict", "flexible")
    ]


def _of_warm_start(record: dict[str, Any]) -> list[tuple[str, str]]:
    facts = record.get("warm_start", {})
    return [("warm start", f"{facts['learned_from']} own replies in format")] if facts.get("done") else []
