"""The charts of scores: points and intervals stand where the numbers are, and what happened is marked."""

import re

import pytest

from kit.evaluation.statistics import wilson
from kit.report.facts import numbers
from kit.report.held_out_chart import held_out_chart, held_out_scores
from kit.report.score_chart import score_chart

NUMBER = r"(-?\d+(?:\.\d+)?)"
DOT = re.compile(
    rf'<title>([^<]+?) (strict|flexible) [^<]+</title><path class="whisker line\d" d="M{NUMBER} {NUMBER}[HV]{NUMBER}"/>'
    rf'<circle class="dot line\d" cx="{NUMBER}" cy="{NUMBER}"'
)


def share(right: int, of: int = 100) -> dict[str, float]:
    low, high = wilson(right, of)
    return {"accuracy": right / of, "low": low, "high": high}


def row(name: str, strict: int, flexible: int) -> dict:
    return {"name": name, "questions": 100, "strict": share(strict), "flexible": share(flexible)}


def logged(step: int, strict: int, flexible: int, **more) -> dict:
    held = {"questions": 100, "format_rate": 0.5, "truncated_rate": 0.0, "completion_length": 9.0}
    return {"step": step, "heldout": held | row("", strict, flexible)} | more


def levels(drawn: str) -> list[tuple[float, ...]]:
    found = re.findall(rf'class="level line\d" d="M{NUMBER} {NUMBER}[HV]{NUMBER}"', drawn)
    return [tuple(map(float, level)) for level in found]


def dots(drawn: str) -> dict[tuple[str, str], tuple[float, ...]]:
    """By row and reading: the start of the interval, x and y, its end, and the point, x and y."""
    return {(of.strip(":"), reading): tuple(map(float, where)) for of, reading, *where in DOT.findall(drawn)}


def test_scores_stand_at_their_shares_with_their_intervals_and_the_level_of_the_base():
    (drawn,) = score_chart([row("base", 10, 40), row("adapter", 60, 62), row("q4_k_m", 0, 100)], "base")
    found = dots(drawn)
    assert set(found) == {
        (name, reading) for name in ("base", "adapter", "q4_k_m") for reading in ("strict", "flexible")
    }
    zero, whole = found["q4_k_m", "strict"][3], found["q4_k_m", "flexible"][3]
    for (name, reading), right in {
        ("base", "strict"): 10,
        ("base", "flexible"): 40,
        ("adapter", "flexible"): 62,
    }.items():
        low, high = wilson(right, 100)
        begins, _, ends, at, _ = ((x - zero) / (whole - zero) for x in found[name, reading])
        assert (at, begins, ends) == pytest.approx((right / 100, low, high), abs=0.002)
    assert [level[0] for level in levels(drawn)] == [found["base", reading][3] for reading in ("strict", "flexible")]
    assert ">62.0%</text>" in drawn


def test_the_held_out_curve_has_the_base_beside_the_warm_start_and_its_level_and_what_was_kept():
    rows = [logged(0, 0, 30), logged(0, 20, 30, warm_start=True), logged(20, 50, 55), logged(40, 45, 50)]
    (drawn,) = held_out_chart(held_out_scores(rows), kept=20, alarms=[(40, "worse than the base")])
    found = dots(drawn)
    across = [found[of, "strict"][3] for of in ("base", "warm start", "step 20", "step 40")]
    assert across == sorted(across)
    assert across[1] - across[0] > 20
    assert across[3] - across[2] == pytest.approx(across[2] - across[1], abs=0.2)
    assert [level[1] for level in levels(drawn)] == [found["base", reading][4] for reading in ("strict", "flexible")]
    none, half = found["base", "strict"][4], found["step 20", "strict"][4]
    low, high = wilson(50, 100)
    _, begins, ends, _, _ = found["step 20", "strict"]
    assert [(none - y) / (none - half) / 2 for y in (begins, ends)] == pytest.approx([low, high], abs=0.005)
    assert re.findall(r'class="event"><title>(.+?)</title>', drawn) == ["warm start", "kept: step 20"]
    assert re.findall(r'class="alarm"><title>(.+?)</title>', drawn) == ["worse than the base"]


@pytest.mark.parametrize(("kept", "is_base", "says"), [(0, True, "the base"), (0, False, "the warm start"),
                                                        (62, False, "step 62"), (None, False, None)])  # fmt: skip
def test_which_adapter_was_kept_is_marked_where_it_is(kept, is_base, says):
    points = held_out_scores([logged(0, 0, 30), logged(0, 20, 30, warm_start=True), logged(60, 50, 55)])
    (drawn,) = held_out_chart(points, kept, is_base)
    marked = re.findall(rf'<title>kept: ([^<]+)</title><path d="M{NUMBER} ', drawn)
    if says is None:
        assert marked == []
        return
    ((words, at),) = marked
    assert words == says
    beside = {"the base": "base", "the warm start": "warm start", "step 62": "step 60"}[says]
    gap = float(at) - (dots(drawn)[beside, "strict"][3] + dots(drawn)[beside, "flexible"][3]) / 2
    assert (gap > 5) if says == "step 62" else abs(gap) < 0.2


def test_with_the_base_alone_there_is_a_point_and_without_scores_no_chart():
    (drawn,) = held_out_chart(held_out_scores([logged(0, 10, 30)]))
    assert set(dots(drawn)) == {("base", "strict"), ("base", "flexible")}
    assert levels(drawn) == []
    assert held_out_chart([]) == score_chart([], "base") == []


@pytest.mark.parametrize(
    ("adapter", "shown"),
    [
        ({}, "base to step 20|17% → 18%"), ({"step": 10}, "base to step 10|17% → 27%"),
        ({"step": 0}, "base to base|17% → 17%"), ({"step": 0, "warm_start": True}, "base to warm start|17% → 20%"),
        ({"step": 15}, "base to step 20|17% → 18%"),
    ],
)  # fmt: skip
def test_the_headline_is_of_the_adapter_that_the_run_has(adapter, shown):
    points = held_out_scores(
        [logged(0, 1, 17), logged(0, 9, 20, warm_start=True), logged(10, 9, 27), logged(20, 9, 18)]
    )
    headline = dict(numbers([], points, {}, adapter))
    name, value = shown.split("|")
    assert headline[f"held out, flexible, {name}"] == value
