"""Which columns of metrics.jsonl are drawn, and how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from kit.report.charts import Line, chart


def training_charts(rows: Sequence[dict[str, Any]]) -> list[Markup]:
    """A chart for each thing that the steps say; what was never measured has none.

    Args:
        rows: of metrics.jsonl, without step 0.
    """
    if not rows:
        return []
    steps = [row["step"] for row in rows]
    marks = [(row["step"], alarm["name"]) for row in rows for alarm in row.get("alarms", [])]

    def values(name: str) -> list[float | None]:
        return [row.get(name) for row in rows]

    def drawn(title: str, *lines: Line, **options: Any) -> list[Markup]:
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
    charts += drawn("KL from the reference", Line("KL", values("kl")), least=0.0)
    charts += drawn("vLLM against the trainer, nats a token", Line("", values("sampling_difference")), least=0.0)
    return charts + drawn("Gradient norm", Line("gradient norm", values("grad_norm")), least=0.0)
