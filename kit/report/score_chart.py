"""The scores of a run with their 95 % intervals: a chart of what evaluate.py found, and the same as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from kit.report.charts import WIDTH, figure, ticks

READINGS = ("strict", "flexible")
_LEFT, _RIGHT, _TOP = 6, 58, 6  # the shares stand on the right, so that nothing has to be pointed at
_NAME, _LINE, _GAP, _AXIS = 19, 15, 8, 24
_LONGEST_NAME = 38  # letters; the table has the whole of it


def score_chart(rows: Sequence[dict[str, Any]], baseline: str) -> list[Markup]:
    """One chart: for each row a point and its interval by either reading, and where the baseline's points lie.

    Args:
        rows: of scores.json.
        baseline: the name of the row that the others are compared with.
    """
    if not rows:
        return []
    marked = ticks(0.0, max(row[reading]["high"] for row in rows for reading in READINGS))
    height_of_row = _NAME + _LINE * len(READINGS) + _GAP
    floor = _TOP + height_of_row * len(rows)

    def x(share: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * share / marked[-1]

    drawn = [_tick(x(value), value, floor) for value in marked]
    for place, row in enumerate(rows):
        top = _TOP + height_of_row * place
        if row["name"] == baseline and len(rows) > 1:
            drawn += [
                Markup('<path class="level line{}" d="M{:.1f} {}V{}"/>').format(
                    number, x(row[reading]["accuracy"]), top + _NAME, floor
                )
                for number, reading in enumerate(READINGS)
            ]
        drawn.append(Markup('<text class="name" x="{}" y="{}">{}</text>').format(_LEFT, top + 13, _short(row["name"])))
        for number, reading in enumerate(READINGS):
            drawn.append(_interval(number, reading, row, x, top + _NAME + _LINE * number + _LINE // 2))
    says = "; ".join(
        f"{row['name']}: " + ", ".join(f"{reading} {told(row[reading])}" for reading in READINGS) for row in rows
    )
    title = f"{rows[0]['questions']:,} questions, 95 % intervals"
    return [figure(title, READINGS, floor + _AXIS, drawn, f"Scores. {says}")]


def score_table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of scores.json in words for the page's table."""
    return [
        {
            "name": row["name"], "strict": in_words(row["strict"]), "flexible": in_words(row["flexible"]),
            "format": f"{row['format_rate']:.0%}", "tokens": f"{row['mean_completion_tokens']:.0f}",
            "precision": row["precision"],
        }
        for row in rows
    ]  # fmt: skip


def in_words(share: dict[str, float]) -> dict[str, str]:
    """A share and its interval, each as a text."""
    return {"value": f"{share['accuracy']:.1%}", "interval": f"{share['low']:.1%} to {share['high']:.1%}"}


def told(share: dict[str, float]) -> str:
    """A share with its interval, as one text.

    >>> told({"accuracy": 0.5, "low": 0.25, "high": 0.75})
    '50.0% (25.0% to 75.0%)'
    """
    words = in_words(share)
    return f"{words['value']} ({words['interval']})"


def _short(name: str) -> str:
    """Long names of files differ at their ends: the middle is left out."""
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half + 1 :]}"


def _tick(x: float, value: float, floor: float) -> Markup:
    return Markup(
        '<path class="grid" d="M{:.1f} {}V{}"/><text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{:.0%}</text>'
    ).format(x, _TOP, floor, x, floor + 17, "middle" if value else "start", value)


def _interval(number: int, reading: str, row: dict[str, Any], x, y: float) -> Markup:
    share = row[reading]
    return Markup(
        '<g><title>{} {} {}</title><path class="whisker line{}" d="M{:.1f} {}H{:.1f}"/>'
        '<circle class="dot line{}" cx="{:.1f}" cy="{}" r="4.5"/>'
        '<text class="value" x="{}" y="{}" text-anchor="end">{:.1%}</text></g>'
    ).format(
        row["name"], reading, told(share), number, x(share["low"]), y, x(share["high"]),
        number, x(share["accuracy"]), y, WIDTH - 4, y + 4, share["accuracy"],
    )  # fmt: skip
