"""``report.html``: a whole run on one page that needs no network, and no script but for browsing replies.

    python -m kit.report.page runs/NAME

Rewritten while a run trains, at its end, and after it is evaluated. Everything that a model or a data set said is
escaped by the template engine, or is JSON that the page's script writes as text; and the page itself forbids browsers
to load anything, or to run any script but that one.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError, run_script
from kit.cli.text import visible
from kit.report import facts, reply_sets
from kit.report.replies import Browsable, ReplySet, browsable, for_script_tag
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder, read_jsonl

_HERE = Path(__file__).parent
# Bytes of replies on the page, which a browser opens in a second. GSM8K's 1,319 test questions, answered by six rows,
# are seven million.
_MOST_OF_SCORES, _MOST_OF_TRAINING = 2_500_000, 1_500_000


def write_report(run: RunFolder) -> Path:
    """Write ``report.html`` into a run folder, from what lies there by now; returns the file."""
    from jinja2 import Environment

    engine = Environment(autoescape=True, trim_blocks=True, finalize=_shown)
    template = engine.from_string(_own("page.html.jinja"))
    write_whole(run.report_file, template.render(_content(run)))
    return run.report_file


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """Every text on the page passes here: control characters become visible, wherever they came from."""
    from markupsafe import Markup

    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _content(run: RunFolder) -> dict[str, Any]:
    from kit.report.held_out_chart import held_out_chart, held_out_scores, held_out_table
    from kit.report.training_charts import training_charts

    record = run.read()
    settings = record.get("settings", {})
    logged = read_jsonl(run.metrics_file)
    rows = [row for row in logged if row["step"]]
    points = held_out_scores(logged)
    adapter = record.get("adapter", {}) if run.has_adapter else {}
    kept = adapter.get("step")
    worse = [
        (row["step"], alarm["name"])
        for row in logged
        for alarm in row.get("alarms", [])
        if alarm["name"] == "worse than the base"
    ]
    return {
        "name": run.path.resolve().name,
        "model": settings.get("model", ""),
        "dataset": settings.get("dataset", ""),
        "state": facts.state(run, record, rows[-1]["step"] if rows else 0),
        "card": record.get("machine", {}).get("card"),
        "numbers": facts.numbers(rows, points, record, adapter),
        "alarms": [(row["step"], alarm) for row in logged for alarm in row.get("alarms", [])],
        "held_out_chart": held_out_chart(points, kept, kept == 0 and not adapter.get("warm_start"), worse),
        "held_out_table": held_out_table(points),
        "charts": training_charts(rows),
        "samples": facts.samples(run),
        "command": record.get("command", ""),
        "settings": [(name, value) for name, value in settings.items() if value != ""],
        "versions": ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items()),
        **_scores_and_replies(run, kept),
        **_style_and_script(),
    }


def _scores_and_replies(run: RunFolder, kept: int | None) -> dict[str, Any]:
    """The scores, and the replies behind them and behind the held-out scores."""
    content: dict[str, Any] = {"scores": []}
    sets: list[tuple[ReplySet | None, int]] = []
    from kit.evaluation.run_scores import known_scores

    if scores := known_scores(run):
        from kit.evaluation.cautions import called
        from kit.report.score_chart import score_chart, score_table

        content = {
            "asked": f"{scores['rows'][0]['questions']:,} questions ({called(scores['dataset'])}, {scores['split']})",
            "scores": score_table(scores["rows"]),
            "score_chart": score_chart(scores["rows"], scores.get("baseline") or "base"),
            "baseline": scores.get("baseline") or "base",
            "remarks": scores.get("remarks", []),
        }
        sets.append((reply_sets.of_scores(run, scores), _MOST_OF_SCORES))
    sets.append((reply_sets.of_training(run, kept), _MOST_OF_TRAINING))
    there = [(replies, most) for replies, most in sets if replies]
    browsed = [browsable(replies, most) for replies, most in there]
    return content | {
        "pairs": facts.examples(there[0][0]) if there else [],
        "browsed": browsed,
        "replies": _data(browsed),
    }


def _data(browsed: list[Browsable]) -> Any:
    from markupsafe import Markup

    return Markup(for_script_tag("[" + ",\n".join(replies.json for replies in browsed) + "]"))


def _style_and_script() -> dict[str, Any]:
    """The page's own style and script, and the policy that lets a browser take these two and nothing else."""
    from markupsafe import Markup

    style, script = _own("page.css"), _own("browse.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}  # ours: nothing to escape


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def main() -> None:
    if len(sys.argv) != 2:
        raise UserError("name one run folder: python -m kit.report.page runs/NAME")
    run = RunFolder(Path(sys.argv[1]))
    if not run.exists():
        raise UserError(f"{run.path} is no run folder: name one that train_lora.py made")
    print(write_report(run))


if __name__ == "__main__":
    run_script(main)
