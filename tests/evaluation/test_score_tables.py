"""The tables on the console: whatever models are called, their figures are there."""

import pytest

from kit.evaluation.score_tables import print_comparisons, print_scores

LONG = "folder-of-models-qwen2.5-0.5b-instruct-q4_k_m-" * 5


def row(name, precision):
    share = {"accuracy": 0.5, "low": 0.299, "high": 0.701}
    compared = {"difference": 0.123, "p_value": 1e-29, "won": 1234, "lost": 56}
    return {
        "name": name, "questions": 1319, "strict": share, "flexible": share, "format_rate": 1, "truncated_rate": 0.25,
        "mean_completion_tokens": 127, "questions_per_second": 1234.5, "precision": precision,
        "against_base": compared | {"flexible": compared},
        "samples": {reading: {f"pass@{2**k}": 0.875 for k in range(8)} for reading in ("strict", "flexible")},
    }  # fmt: skip


@pytest.mark.parametrize("columns", [20, 80, 300])
@pytest.mark.parametrize("terminal", ["", "1"])
def test_no_figure_is_cut_whatever_the_names(columns, terminal, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal then
        monkeypatch.setenv("NO_COLOR", "1")
    rows = [row(f"{LONG}1", "q4_k_m GGUF"), row(f"{LONG}2", "float32, 16-bit base of some long kind")]
    settings = {"samples": 128, "temperature": 1.0}
    print_scores({"rows": rows, "baseline": LONG, "remarks": [], "settings": settings})
    printed = capsys.readouterr().out
    assert "…" not in printed
    for figure in ("50.0 [29.9, 70.1]", "100.0%", "25.0%", "127", "1234.5", "+12.3", "1234 : 56 (1e-29)"):
        assert printed.count(figure) >= 2, figure
    assert printed.count("87.5%") == 2 * 2 * 8
    assert "pass@128" in printed


def test_a_title_is_in_one_line_and_notes_follow(capsys):
    title = "runs/a/scores.json minus runs/b/scores.json, 11 questions"
    print_comparisons(title, [("x", row("x", "")["against_base"])], ["left out: 1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == title
    assert lines[-1] == "! left out: 1"
