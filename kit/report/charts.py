"""Line charts as SVG, drawn without a browser's help: they need no script and follow the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

WIDTH, HEIGHT = 400, 190
LEFT, RIGHT, TOP, BOTTOM = 47, 10, 12, 26


@dataclass(frozen=True)
class Line:
    """One curve: its name, a value for each step (``None`` where there is none), and half the width of its band."""

    name: str
    values: Sequence[float | None]
    spread: Sequence[float | None] = ()


def chart(
    title: str,
    steps: Sequence[int],
    lines: Sequence[Line],
    marks: Sequence[tuple[int, str]] = (),
    least: float | None = None,
    most: float | None = None,
    percent: bool = False,
) -> Markup:
    """An SVG of ``lines`` over ``steps``.

    Args:
        title: above the chart, and what a screen reader says.
        steps: the time axis.
        lines: up to four curves.
        marks: (step, what happened there): alarms.
        least: the bottom of the axis, where it is fixed.
        most: the top of the axis, where it is fixed.
        percent: write the axis in per cent.
    """
    values = ticks(*_bounds(lines, least, most))
    bottom, top = values[0], values[-1]
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first)

    def y(value: float) -> float:
        share = min(1.0, max(0.0, (value - bottom) / (top - bottom)))
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    drawn = [axis(value, y(value), percent) for value in values]
    drawn += [
        Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
            round(x(step)), HEIGHT - 8, anchor, f"step {step}" if anchor == "start" else step
        )
        for step, anchor in ((min(steps), "start"), (max(steps), "end"))
    ]
    for number, line in enumerate(lines):
        drawn.append(_curve(number, line, [x(step) for step in steps], y))
    for step, words in marks:
        drawn.append(
            Markup('<g class="alarm"><title>{}</title><path d="M{:.1f} {}V{}"/></g>').format(
                words, x(step), TOP, HEIGHT - BOTTOM
            )
        )
    return figure(title, [line.name for line in lines] if len(lines) > 1 else [], HEIGHT, drawn)


def figure(title: str, keys: Sequence[str], height: int, drawn: Sequence[Markup], says: str = "") -> Markup:
    """What was drawn, ``height`` units high and WIDTH wide, under its title and the names of its colours.

    Args:
        title: above the chart.
        keys: the names of the lines 0, 1, 2 …
        height: of the drawing.
        drawn: its parts.
        says: what a screen reader says; the title where it is left out.
    """
    legend = Markup("").join(
        Markup('<span class="key line{}">{}</span>').format(number, name) for number, name in enumerate(keys)
    )
    return Markup(
        '<figure class="chart"><figcaption><span>{}</span>{}</figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg></figure>'
    ).format(title, legend, WIDTH, height, says or title, Markup("").join(drawn))


def smooth(values: Sequence[float | None]) -> list[float | None]:
    """A moving average over a twelfth of the curve, so that noise does not hide where it goes."""
    reach, last = len(values) // 24, len(values)
    sums = list(accumulate((value or 0.0 for value in values), initial=0.0))
    counts = list(accumulate((value is not None for value in values), initial=0))
    found: list[float | None] = []
    for index in range(last):
        begin, end = max(0, index - reach), min(last, index + reach + 1)
        count = counts[end] - counts[begin]
        found.append((sums[end] - sums[begin]) / count if count else None)
    return found


def _bounds(lines: Sequence[Line], least: float | None, most: float | None) -> tuple[float, float]:
    values = [value for line in lines for value in line.values if value is not None] or [0.0]
    for line in lines:
        for value, spread in zip(smooth(line.values), smooth(line.spread), strict=False):
            if value is not None and spread is not None:
                values += [value - spread, value + spread]
    bottom = min(values) if least is None else least
    top = max([*values, bottom]) if most is None else most
    return (bottom, top) if top > bottom else (bottom, bottom + 1)


def ticks(bottom: float, top: float) -> list[float]:
    """Three to five round numbers from at most ``bottom`` to at least ``top``."""
    size = 10.0 ** math.floor(math.log10((top - bottom) / 2))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor * 3 >= top - bottom)
    first, last = math.floor(bottom / step + 1e-9), math.ceil(top / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def axis(value: float, y: float, percent: bool) -> Markup:
    """A horizontal line of the grid at the height ``y``, with its value on the left."""
    label = f"{value:.0%}" if percent else f"{value:.3g}"
    return Markup(
        '<path class="grid" d="M{} {:.1f}H{}"/><text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(LEFT, y, WIDTH - RIGHT, LEFT - 5, y + 4, label)


def _curve(number: int, line: Line, xs: Sequence[float], y) -> Markup:
    """The band, the values themselves, thin, and their moving average."""
    band = Markup("")
    if line.spread:
        both = [
            (px, value, spread or 0.0)
            for px, value, spread in zip(xs, smooth(line.values), smooth(line.spread), strict=True)
            if value is not None
        ]
        upper = [f"{px:.1f} {y(value + spread):.1f}" for px, value, spread in both]
        lower = [f"{px:.1f} {y(value - spread):.1f}" for px, value, spread in reversed(both)]
        band = Markup('<path class="band line{}" d="M{}Z"/>').format(number, "L".join(upper + lower))
    thin = Markup('<path class="thin line{}" d="{}"/>').format(number, _path(xs, line.values, y))
    thick = Markup('<path class="curve line{}" d="{}"/>').format(number, _path(xs, smooth(line.values), y))
    return band + thin + thick


def _path(xs: Sequence[float], values: Sequence[float | None], y) -> str:
    points = [f"{x:.1f} {y(value):.1f}" for x, value in zip(xs, values, strict=True) if value is not None]
    return "M" + "L".join(points) + (f"L{points[0]}" if len(points) == 1 else "") if points else ""
