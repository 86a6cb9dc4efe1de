"""The scoreboard on the console: rows as tables, remarks below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from kit.evaluation.scores import READINGS, Scores, points

WIDTH, WIDTH_OF_A_LOG = 112, 160


def print_scores(scores: Scores) -> None:
    """The rows, the comparison with the baseline, the samples if there are any, and the remarks."""
    rows = scores["rows"]
    title = f"{rows[0]['questions']} questions, one greedy answer each (95 % intervals)"
    body = [
        [
            row["name"], *(_with_interval(row[reading]) for reading in READINGS), f"{row['format_rate']:.1%}",
            f"{row['truncated_rate']:.1%}", f"{row['mean_completion_tokens']:.0f}", _rate(row), row["precision"],
        ]
        for row in rows
    ]  # fmt: skip
    _print_table(title, ["", "strict %", "flexible %", "format", "cut off", "tokens", "per s", "computed in"], body)
    compared = [(row["name"], row["against_base"]) for row in rows if row.get("against_base")]
    if compared:
        print_comparisons(f"against {scores['baseline']}", compared)
    sampled = [row for row in rows if row.get("samples")]
    if sampled:
        names = list(sampled[0]["samples"]["strict"])
        body = [
            [f"{row['name']}, {reading}", *(f"{row['samples'][reading][name]:.1%}" for name in names)]
            for row in sampled
            for reading in READINGS
        ]
        settings = scores["settings"]
        _print_table(f"{settings['samples']} samples, temperature {settings['temperature']}", ["", *names], body)
    for remark in scores["remarks"]:
        print(f"! {remark}")


def print_comparisons(title: str, compared: list[tuple[str, Scores]], notes: Sequence[str] = ()) -> None:
    """Paired comparisons, two columns a reading: points, and McNemar's test on questions won and lost; then notes."""
    columns = ["", "strict", "won : lost (p)", "flexible", "won : lost (p)"]
    body = [
        [name, points(result["difference"]), _verdict(result), points(flexible["difference"]), _verdict(flexible)]
        for name, result in compared
        for flexible in [result["flexible"]]
    ]
    _print_table(title, columns, body)
    for note in notes:
        print(f"! {note}")


def markdown_table(scores: Scores) -> str:
    """The rows for a model card."""
    lines = ["| | strict XML | flexible | in format | computed in |", "|---|---|---|---|---|"]
    for row in scores["rows"]:
        cells = [row["name"], *(f"{_with_interval(row[reading])}" for reading in READINGS)]
        lines.append(f"| {' | '.join(cells)} | {row['format_rate']:.1%} | {row['precision']} |")
    return "\n".join(lines)


def _with_interval(share: dict[str, float]) -> str:
    return f"{100 * share['accuracy']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _verdict(result: dict[str, Any]) -> str:
    return f"{result['won']} : {result['lost']} ({result['p_value']:.2g})"


def _rate(row: Scores) -> str:
    rate = row["questions_per_second"]
    return f"{rate:.1f}" if rate else ""


def _print_table(title: str, columns: list[str], body: list[list[str]]) -> None:
    """A table of which the figures are never cut: where the line is too short, names wrap."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, emoji=False, markup=False)
    console.width = max(console.width, WIDTH if console.is_terminal else WIDTH_OF_A_LOG)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        in_words = column in ("", "computed in")
        justify: Literal["left", "right"] = "left" if in_words else "right"
        table.add_column(column, justify=justify, no_wrap=not in_words, overflow="fold")
    for cells in body:
        table.add_row(*cells)
    console.print(title, style="italic", soft_wrap=True)  # in one line, however narrow the table
    console.print(table)
