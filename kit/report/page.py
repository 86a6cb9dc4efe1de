"""``report.html``: a whole run on one page that needs nothing else, neither network nor script.

    python -m kit.report.page runs/NAME

Rewritten while a run trains, at its end, and after it is evaluated. Everything that a model or a data set said is
escaped by the template engine.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError, run_script
from kit.cli.text import visible
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder, read_jsonl

_TEMPLATE = Path(__file__).with_suffix(".html.jinja")
_PAIRS = 3


def write_report(run: RunFolder) -> Path:
    """Write ``report.html`` into a run folder, from what lies there by now; returns the file."""
    from jinja2 import Environment

    engine = Environment(autoescape=True, trim_blocks=True, finalize=_shown)
    template = engine.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    write_whole(run.report_file, template.render(_content(run)))
    return run.report_file


def _shown(value: Any) -> Any:
    """Every text on the page passes here: control characters become visible, wherever they came from."""
    from markupsafe import Markup

    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _content(run: RunFolder) -> dict[str, Any]:
    record = run.read()
    settings = record.get("settings", {})
    logged, rows = read_jsonl(run.metrics_file), run.steps()
    done, planned = (rows[-1]["step"] if rows else 0), settings.get("max_steps", 0)
    state = f"finished after {done} steps" if run.has_adapter else f"step {done} of {planned}"
    if run.has_adapter and (kept := record.get("adapter", {}).get("step", done)) != done:
        state += f", its adapter is that of step {kept}, whose held-out answers were better"
    return {
        "name": run.path.resolve().name,
        "model": settings.get("model", ""),
        "dataset": settings.get("dataset", ""),
        "state": "trained elsewhere" if "adopted" in record else state,
        "card": record.get("machine", {}).get("card"),
        "numbers": _numbers(rows) + _held_out_numbers(logged) + _warm_start_numbers(record),
        "alarms": [(row["step"], alarm) for row in logged for alarm in row.get("alarms", [])],
        "charts": [*_held_out_chart(logged), *(_charts(rows) if rows else [])],
        "samples": _samples(run),
        "command": record.get("command", ""),
        "settings": [(name, value) for name, value in settings.items() if value != ""],
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        **_scores(run),
        "pairs": _pairs(run),
    }


def _numbers(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
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


def _charts(rows: list[dict[str, Any]]) -> list[Any]:
    from kit.report.charts import Line, chart

    steps = [row["step"] for row in rows]
    marks = [(row["step"], alarm["name"]) for row in rows for alarm in row.get("alarms", [])]

    def values(name: str) -> list[float | None]:
        return [row.get(name) for row in rows]

    def drawn(title: str, *lines: Line, **options: Any) -> list[Any]:
        there = [line for line in lines if any(value is not None for value in line.values)]
        return [chart(title, steps, there, marks, **options)] if there else []

    from_zero = {"least": 0.0} if all((value or 0) >= 0 for value in values("reward")) else {}
    charts = drawn("Reward, all together", Line("reward", values("reward"), values("reward_std")), **from_zero)
    for name in rows[-1]["rewards"]:
        mean = [row["rewards"].get(name) for row in rows]
        std = [row.get("rewards_std", {}).get(name) for row in rows]
        within = {"least": 0.0, "most": 1.0} if all(0 <= (value or 0) <= 1 for value in mean) else {}
        charts += drawn(f"Reward: {name}", Line(name, mean, std), **within)
    shares = {"least": 0.0, "most": 1.0, "percent": True}
    charts += drawn(
        "Format and correctness",
        Line("in format", values("format_rate")), Line("correct", values("correct_rate")), **shares,
    )  # fmt: skip
    charts += drawn("Length in tokens", Line("tokens", values("completion_length")), least=0.0)
    charts += drawn(
        "Cut off, no spread",
        Line("cut off", values("truncated_rate")), Line("no spread", values("groups_without_spread")), **shares,
    )  # fmt: skip
    charts += drawn("Entropy, nats a token", Line("entropy", values("entropy")), least=0.0)
    charts += drawn("KL from the base", Line("KL", values("kl")), least=0.0)
    charts += drawn("vLLM against the trainer, nats a token", Line("", values("sampling_difference")), least=0.0)
    return charts + drawn("Gradient norm", Line("gradient norm", values("grad_norm")), least=0.0)


def _warm_start_numbers(record: dict[str, Any]) -> list[tuple[str, str]]:
    facts = record.get("warm_start", {})
    return [("warm start", f"{facts['learned_from']} own replies in format")] if facts.get("done") else []


def _held_out_numbers(logged: list[dict[str, Any]]) -> list[tuple[str, str]]:
    scores = [row["heldout"] for row in logged if row.get("heldout")]
    return [
        (f"held out, {name}", " → ".join(f"{score[name]['accuracy']:.0%}" for score in (scores[0], scores[-1])))
        for name in ("strict", "flexible")
        if scores
    ]


def _held_out_chart(logged: list[dict[str, Any]]) -> list[Any]:
    """What the policy answered to the questions that were set aside, with half of the flexible score's interval."""
    from kit.report.charts import Line, chart

    rows = [row for row in logged if row.get("heldout")]
    if not rows:
        return []
    scores = [row["heldout"] for row in rows]
    half = [(score["flexible"]["high"] - score["flexible"]["low"]) / 2 for score in scores]
    lines = [
        Line("flexible", [score["flexible"]["accuracy"] for score in scores], half),
        Line("strict", [score["strict"]["accuracy"] for score in scores]),
        Line("in format", [score["format_rate"] for score in scores]),
    ]
    marks = [(row["step"], alarm["name"]) for row in rows for alarm in row.get("alarms", []) if "base" in alarm["name"]]
    title = f"{scores[0]['questions']} held-out questions"
    return [chart(title, [row["step"] for row in rows], lines, marks, least=0.0, most=1.0, percent=True)]


def _samples(run: RunFolder) -> list[dict[str, Any]]:
    """The best- and the worst-paid completion of an early, a middle and a late step."""
    kept = read_jsonl(run.samples_file)
    if not kept:
        return []
    steps = list(dict.fromkeys(sample["step"] for sample in kept))
    wanted = {steps[0], steps[len(steps) // 2], steps[-1]}
    found = [sample for sample in kept if sample["step"] in wanted]
    chosen = []
    for step in dict.fromkeys(sample["step"] for sample in found):
        of_step = sorted(
            (s for s in found if s["step"] == step), key=lambda s: sum(v or 0 for v in s["rewards"].values())
        )
        chosen += [of_step[-1], of_step[0]] if len(of_step) > 1 else of_step
    return [
        {
            "step": sample["step"],
            "question": sample["question"],
            "gold": sample["gold"].rsplit("####", 1)[-1].strip(),
            "reply": sample["reply"],
            "paid": ", ".join(f"{name} {value:g}" for name, value in sample["rewards"].items() if value is not None),
        }
        for sample in chosen
    ]


def _scores(run: RunFolder) -> dict[str, Any]:
    if not run.scores_file.exists():
        return {"scores": []}
    from kit.evaluation.scores_file import read_scores

    scores = read_scores(run.scores_file)

    def share(of: dict[str, float]) -> dict[str, str]:
        return {"value": f"{of['accuracy']:.1%}", "interval": f"{of['low']:.1%} to {of['high']:.1%}"}

    rows = [
        {
            "name": row["name"], "strict": share(row["strict"]), "flexible": share(row["flexible"]),
            "format": f"{row['format_rate']:.0%}", "tokens": f"{row['mean_completion_tokens']:.0f}",
            "precision": row["precision"],
        }
        for row in scores["rows"]
    ]  # fmt: skip
    questions = scores["rows"][0]["questions"] if rows else 0
    return {"scores": rows, "remarks": scores.get("remarks", []), "questions": questions}


def _pairs(run: RunFolder) -> list[dict[str, Any]]:
    """Questions that base and adapter both answered: where they differ in being right, and one where they do not."""
    if not run.scores_file.exists():
        return []
    from kit.evaluation.scores_file import read_scores
    from kit.evaluation.transcripts import lines_of

    scores = read_scores(run.scores_file)
    rows = {row["name"]: row for row in scores["rows"]}
    answered = []
    for name in ("base", "adapter"):
        lines = lines_of(run.path, rows[name], scores["fingerprint"]) if name in rows else []
        answered.append({line["index"]: line for line in lines})
    base, adapter = answered
    both = [
        (before, after)
        for index, before in base.items()
        if (after := adapter.get(index)) and after["question"] == before["question"]
    ]
    won = [pair for pair in both if pair[1]["strict"] and not pair[0]["strict"]]
    lost = [pair for pair in both if pair[0]["strict"] and not pair[1]["strict"]]
    same = [pair for pair in both if pair[0]["strict"] == pair[1]["strict"]]
    return [
        {
            "question": before["question"],
            "gold": before["gold"],
            "replies": [
                {"name": name, "right": row["strict"], "text": row["reply"]}
                for name, row in (("base", before), ("adapter", after))
            ],
        }
        for before, after in [*won[:1], *lost[:1], *same[:1]][:_PAIRS]
    ]


def main() -> None:
    if len(sys.argv) != 2:
        raise UserError("name one run folder: python -m kit.report.page runs/NAME")
    run = RunFolder(Path(sys.argv[1]))
    if not run.exists():
        raise UserError(f"{run.path} is no run folder: name one that train_lora.py made")
    print(write_report(run))


if __name__ == "__main__":
    run_script(main)
