"""SCORE: transcripts become rows with intervals, paired comparisons, and sentences about what they do and do not show.

Nothing is run here: every number can be had again from the transcripts, and is, each time.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from kit.evaluation.answering import Answers
from kit.evaluation.statistics import majority_is_right, mcnemar, paired_interval, pass_at_k, wilson
from kit.evaluation.transcripts import Line
from kit.grading import flexible_answer, gold_answer, is_correct, strict_answer

READINGS = ("strict", "flexible")
NOISE = 0.05  # a p-value at or above this is within noise
Scores = dict[str, Any]


def row_of(answers: Answers) -> Scores:
    """A row of scores.json, without the comparison."""
    lines, artefact = answers.greedy, answers.artefact
    row: Scores = {
        "name": artefact.name,
        "path": artefact.path,
        "base": artefact.base,
        "engine": answers.runtime.engine,
        "precision": answers.runtime.precision,
        "fingerprint": answers.fingerprint,
        "made_by": answers.made_by,
        "questions": len(lines),
    }
    for reading in READINGS:
        right = sum(line[reading] for line in lines)
        low, high = wilson(right, len(lines))
        row[reading] = {"accuracy": right / len(lines), "low": low, "high": high}
    row["format_rate"] = _mean(lines, "in_format")
    row["truncated_rate"] = _mean(lines, "truncated")
    row["mean_completion_tokens"] = _mean(lines, "tokens")
    seconds = sum(line["seconds"] for line in lines)
    row["questions_per_second"] = len(lines) / seconds if seconds else None
    if answers.samples:
        row["samples"] = _of_samples(answers.samples)
    return row


def _mean(lines: list[Line], name: str) -> float:
    return sum(line[name] for line in lines) / len(lines)


def _of_samples(lines: list[Line]) -> Scores:
    """pass@k for k = 1, 2, 4 … up to all samples, and maj@k of all, by each reading."""
    by_question: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        by_question[line["index"]].append(line)
    count = max(map(len, by_question.values()))
    powers = sorted({min(2**power, count) for power in range(count.bit_length() + 1)})
    result: Scores = {"count": count}
    for reading, read in zip(READINGS, (strict_answer, flexible_answer), strict=True):
        groups = [(group, sum(line[reading] for line in group)) for group in by_question.values()]
        shares = {f"pass@{k}": sum(pass_at_k(count, right, k) for _, right in groups) / len(groups) for k in powers}
        votes = [
            majority_is_right([read(line["reply"]) for line in group], partial(_is_gold, group[0]["gold"]))
            for group, _ in groups
        ]
        result[reading] = shares | {f"maj@{count}": sum(votes) / len(votes)}
    return result


def _is_gold(gold: str, answer: Any) -> bool:
    return is_correct(answer, gold_answer(gold))


def compare(before: list[Line], after: list[Line]) -> Scores | None:
    """The paired comparison on the questions that both answered; ``None`` where there are none.

    A pair is the same question with the same gold answer, wherever it stands; of one that stands twice, the first with
    the first and so on. ``difference`` is after minus before in accuracy (0 to 1), ``won`` and ``lost`` count
    questions, ``p_value`` is McNemar's exact one: of the strict reading, and under ``flexible`` of the other.
    """
    pairs = _pairs(before, after)
    if not pairs:
        return None
    strict, flexible = (_paired(pairs, reading) for reading in READINGS)
    return strict | {"questions": len(pairs), "flexible": flexible}


def _pairs(before: list[Line], after: list[Line]) -> list[tuple[Line, Line]]:
    answered: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in reversed(before):
        answered[line["question"], line["gold"]].append(line)
    return [(same.pop(), line) for line in after if (same := answered[line["question"], line["gold"]])]


def _paired(pairs: list[tuple[Line, Line]], verdict: str) -> Scores:
    won = sum(new[verdict] and not old[verdict] for old, new in pairs)
    lost = sum(old[verdict] and not new[verdict] for old, new in pairs)
    difference = (won - lost) / len(pairs)
    return {"difference": difference, "p_value": mcnemar(won, lost), "won": won, "lost": lost}


def add_comparisons(rows: list[Scores], greedy: dict[str, list[Line]], baseline: str | None) -> list[str]:
    """Put ``against_base`` into every row but the baseline's; returns the remarks, sentences for people.

    Args:
        rows: of ``row_of``.
        greedy: the greedy lines by the row's name.
        baseline: the name of the row to compare with; ``None`` or a name without a row compares nothing.
    """
    remarks: list[str] = []
    gains: dict[tuple[str, str], list[Scores]] = defaultdict(list)
    for row in rows:
        row.pop("against_base", None)
        if baseline in greedy and row["name"] != baseline:
            row["against_base"] = compare(greedy[baseline], greedy[row["name"]])
            if verdict := _of_what(row["against_base"]):
                gains[verdict].append(row)
        if row["name"] in _made_from_merged(rows):
            remarks += _about_loss(row["name"], _pairs(greedy["merged"], greedy[row["name"]]))
    return [_about_gain(gained, *verdict, str(baseline)) for verdict, gained in gains.items()] + remarks


def _made_from_merged(rows: list[Scores]) -> list[str]:
    """The GGUF files that lie beside merged in its run folder."""
    folders = [Path(row["path"]).resolve().parent / "gguf" for row in rows if row["name"] == "merged"]
    return [
        row["name"] for row in rows if row["engine"] == "llama.cpp" and Path(row["path"]).resolve().parent in folders
    ]


def _of_what(against: Scores | None) -> tuple[str, str] | None:
    """What a strict gain beyond noise is, and what follows, where the flexible reading has none; ``None`` elsewhere.

    It is format alone where the flexible difference, by its 95 % interval, can be no half of the strict one, and can be
    nothing.
    """
    if not against:
        return None
    flexible = against["flexible"]
    beyond = [result["p_value"] < NOISE for result in (against, flexible)]
    if against["difference"] <= 0 or not beyond[0] or (beyond[1] and flexible["difference"] > 0):
        return None
    if beyond[1]:
        return "is format, and hides a loss", "the model learned where to put its answers, and finds fewer right ones."
    low, high = paired_interval(flexible["won"], flexible["lost"], against["questions"])
    if low <= 0 and high < against["difference"] / 2:
        return "is format alone", "the model learned where to put its answers, not to find better ones."
    count = against["questions"]
    return "may be format alone", f"{count} questions do not tell whether it finds more right answers: ask it more."


def _about_gain(rows: list[Scores], kind: str, conclusion: str, baseline: str) -> str:
    against, flexible = rows[0]["against_base"], rows[0]["against_base"]["flexible"]
    others = f" (as of {', '.join(row['name'] for row in rows[1:])})" if rows[1:] else ""
    gain, of_answers = points(against["difference"]), points(flexible["difference"])
    return (
        f"{rows[0]['name']}: its gain of {gain} points over {baseline} {kind}{others}. By the answer that a reply "
        f"points to or ends with, in whatever form, it is {of_answers} (p = {flexible['p_value']:.2g}): {conclusion}"
    )


def _about_loss(name: str, pairs: list[tuple[Line, Line]]) -> list[str]:
    """What a GGUF loses of what merged has; the form too: few questions show that first (a real q4_k_m kept none)."""
    if not pairs:
        return []
    results = {verdict: _paired(pairs, verdict) for verdict in (*READINGS, "in_format")}
    lost = [
        f"{points(result['difference'])} points {verdict.replace('_', ' ')} (p = {result['p_value']:.2g})"
        for verdict, result in results.items()
        if result["difference"] < 0 and result["p_value"] < NOISE
    ]
    if not lost:
        return []
    return [f"{name}: worse than merged beyond noise, {' and '.join(lost)}: use a larger type, such as q8_0 or f16."]


def points(difference: float) -> str:
    """A difference in accuracy as percentage points with its sign."""
    return f"{100 * difference:+.1f}"
