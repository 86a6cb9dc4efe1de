"""What the policy answers to the questions that were set aside, before training, while it goes on, and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kit.report.charts import LEFT, RIGHT, WIDTH, axis, figure, ticks
from kit.report.score_chart import READINGS, in_words, told
from kit.storage.run_rows import policy_of

_HEIGHT, _TOP, _BOTTOM = 230, 36, 26
_BASE_ALONE = 0.1  # of the width, left to the base where a warm start comes between it and the first step


@dataclass(frozen=True)
class HeldOutScore:
    """One point of the curve: a ``heldout`` of metrics.jsonl, and of what."""

    step: int
    of: str
    score: dict[str, Any]


def held_out_scores(logged: Sequence[dict[str, Any]]) -> list[HeldOutScore]:
    """The points in the lines of metrics.jsonl: that of the base, the warm start's if there was one, the steps'."""
    return [HeldOutScore(row["step"], policy_of(row), row["heldout"]) for row in logged if row.get("heldout")]


def held_out_chart(
    points: Sequence[HeldOutScore],
    kept: int | None = None,
    kept_is_base: bool = False,
    alarms: Sequence[tuple[int, str]] = (),
) -> list[Markup]:
    """One chart: strict and flexible with their 95 % intervals, the base's level, what happened where.

    Args:
        points: of ``held_out_scores``.
        kept: the step whose adapter the run has; ``None`` where that is not known yet.
        kept_is_base: at step 0 it is the base's, not that of the warm start.
        alarms: (step, what it is called).
    """
    if not points:
        return []
    warm = any(point.of == "warm start" for point in points)
    begins = LEFT + (WIDTH - LEFT - RIGHT) * (_BASE_ALONE if warm else 0.0)
    last = max(1, kept or 0, *(point.step for point in points))

    def x(step: int, of: str = "") -> float:
        return float(LEFT) if of == "base" else begins + (WIDTH - RIGHT - begins) * step / last

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    floor = _HEIGHT - _BOTTOM
    drawn = [axis(value, y(value), True) for value in ticks(0.0, 1.0)]
    drawn.append(_below(LEFT, "start", points[0].of))
    if last > 1:
        drawn.append(_below(WIDTH - RIGHT, "end", f"step {last}"))
    for step, name in alarms:
        drawn.append(_event("alarm", x(step), floor, name))
    if warm:
        drawn.append(_event("event", x(0), floor, "warm start", _TOP - 22))
    if kept is not None:
        where = "the base" if kept_is_base else f"step {kept}" if kept else "the warm start"
        drawn.append(_event("event", x(kept, "base" if kept_is_base else ""), floor, f"kept: {where}", _TOP - 8))
    places = [x(point.step, point.of) for point in points]
    if points[0].of == "base" and len(points) > 1:
        for number, reading in enumerate(READINGS):
            level = y(points[0].score[reading]["accuracy"])
            drawn.append(
                Markup('<path class="level line{}" d="M{} {:.1f}H{}"/>').format(number, LEFT, level, WIDTH - RIGHT)
            )
    in_format = [y(point.score["format_rate"]) for point in points]
    drawn.append(Markup('<path class="curve quiet-curve line2" d="{}"/>').format(_path(places, in_format)))
    for number, reading in enumerate(READINGS):
        drawn.append(_curve(number, reading, points, places, y))
    said = "; ".join(f"{point.of}: " + ", ".join(f"{r} {told(point.score[r])}" for r in READINGS) for point in points)
    title = f"{points[0].score['questions']} held-out questions"
    return [figure(title, [*READINGS, "in format"], _HEIGHT, drawn, f"{title}. {said}")]


def held_out_table(points: Sequence[HeldOutScore]) -> list[dict[str, Any]]:
    """The same in words, a row a score."""
    return [
        {
            "of": point.of, **{reading: in_words(point.score[reading]) for reading in READINGS},
            "format": f"{point.score['format_rate']:.0%}", "cut_off": f"{point.score['truncated_rate']:.0%}",
            "tokens": f"{point.score['completion_length']:.0f}",
        }
        for point in points
    ]  # fmt: skip


def _curve(number: int, reading: str, points: Sequence[HeldOutScore], places: Sequence[float], y) -> Markup:
    """A line through the points, each with its interval; the readings stand a little apart, as they often agree."""
    aside = (-2.0, 2.0)[number]
    shares = [point.score[reading] for point in points]
    parts = [
        Markup('<path class="curve line{}" d="{}"/>').format(
            number, _path([place + aside for place in places], [y(share["accuracy"]) for share in shares])
        )
    ]
    for point, place, share in zip(points, places, shares, strict=True):
        parts.append(
            Markup(
                '<g><title>{}: {} {}</title><path class="whisker line{}" d="M{:.1f} {:.1f}V{:.1f}"/>'
                '<circle class="dot line{}" cx="{:.1f}" cy="{:.1f}" r="3"/></g>'
            ).format(
                point.of, reading, told(share), number, place + aside, y(share["low"]), y(share["high"]),
                number, place + aside, y(share["accuracy"]),
            )
        )  # fmt: skip
    return Markup("").join(parts)


def _path(xs: Sequence[float], ys: Sequence[float]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))


def _below(x: float, anchor: str, words: str) -> Markup:
    return Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(x, _HEIGHT - 8, anchor, words)


def _event(kind: str, x: float, floor: float, words: str, written_at: float | None = None) -> Markup:
    """A line across the chart where something happened; with its words above it, unless pointing at it is enough."""
    line = Markup('<g class="{}"><title>{}</title><path d="M{:.1f} {}V{}"/>').format(
        kind, words, x, (written_at or _TOP - 4) + 4, floor
    )
    if written_at is None:
        return line + Markup("</g>")
    anchor = "start" if x < WIDTH / 2 else "end"
    return line + Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="{}">{}</text></g>').format(
        x, written_at, anchor, words
    )
