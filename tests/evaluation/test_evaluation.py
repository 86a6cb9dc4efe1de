"""The scoreboard: resuming, comparisons, samples, remarks, and a GGUF path that needs no torch."""

import json
import os
import subprocess
import time

import pytest

import evaluate
from kit.evaluation.call import evaluation_settings
from kit.evaluation.scores import add_comparisons, compare
from kit.grading import verdicts
from tests.conftest import killed_once, run_script


def lines(*verdicts, strict=True, flexible=True):
    """Transcript lines of one artefact; a verdict of 1 is right in the readings that are asked for."""
    return [
        {"index": i, "question": f"q{i}", "gold": "1", "strict": bool(v and strict), "flexible": bool(v and flexible),
         "in_format": True}
        for i, v in enumerate(verdicts)
    ]  # fmt: skip


def without_times(file):
    rows = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def gguf(chain):
    return chain / "short" / "gguf" / "short.q8_0.gguf"


@pytest.fixture(scope="module")
def heldout(chain):
    return chain / "data" / "heldout.jsonl"


def test_a_question_longer_than_those_of_training_is_answered_by_llama_cpp_too(gguf, tmp_path):
    data, question = tmp_path / "long.jsonl", "Ana reads a long story about her friends and their garden. " * 60
    data.write_text(json.dumps({"question": f"{question}How much is 3 + 4?", "answer": "#### 7"}) + "\n")
    run_script("evaluate.py", gguf, "--dataset", data, "--max-completion-length", 8, "--output-dir", tmp_path)
    assert len(without_times(tmp_path / "transcripts" / "q8_0.jsonl")) == 1


def test_a_killed_evaluation_goes_on_where_it_was(chain, gguf, heldout, tmp_path):
    command = ["evaluate.py", gguf, "--dataset", heldout, "--limit", "40", "--output-dir"]
    run_script(*command, tmp_path / "whole")
    broken = tmp_path / "broken" / "transcripts" / "q8_0.jsonl"
    killed_once(lambda: broken.exists() and broken.read_text().count("\n") >= 5, *command, tmp_path / "broken")
    answered = broken.read_text().count("\n")
    with broken.open("a") as transcript:
        transcript.write('{"index": 39, "question": "cut sho')
    again = run_script(*command, tmp_path / "broken")
    assert answered < 40
    assert f"{answered} of 40 replies are there already, going on with the rest" in again.stdout
    assert without_times(broken) == without_times(tmp_path / "whole" / "transcripts" / "q8_0.jsonl")
    for _ in range(100):  # the killed run's llama-server ends by itself
        if str(gguf) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout:
            break
        time.sleep(0.1)
    else:
        pytest.fail("llama-server outlived the process that started it")


def test_replies_of_another_model_are_not_taken_over(chain, gguf, heldout, tmp_path):
    f16 = gguf.with_name("short.f16.gguf")
    for file in (gguf, f16):
        (tmp_path / "x.gguf").unlink(missing_ok=True)
        os.link(file, tmp_path / "x.gguf")
        scored = run_script(
            "evaluate.py", tmp_path / "x.gguf", "--dataset", heldout, "--limit", "5", "--output-dir", tmp_path
        )
        assert "already" not in scored.stdout
    again = run_script(
        "evaluate.py", tmp_path / "x.gguf", "--dataset", heldout, "--limit", "5", "--output-dir", tmp_path
    )
    assert "5 of 5 replies are there already" in again.stdout


def test_the_gguf_path_needs_neither_torch_nor_unsloth(gguf, heldout, tmp_path):
    hidden = "dict.fromkeys(('torch', 'unsloth', 'transformers', 'peft', 'trl'))"
    code = f"import sys, runpy; sys.modules.update({hidden}); runpy.run_path('evaluate.py', run_name='__main__')"
    scored = run_script("-c", code, gguf, "--dataset", heldout, "--limit", "3", "--output-dir", tmp_path)
    assert "3 questions" in scored.stdout


def test_samples_add_pass_and_majority(gguf, heldout, tmp_path):
    command = ["evaluate.py", gguf, "--dataset", heldout, "--limit", "6", "--samples", "3", "--temperature", "1.3"]
    run_script(*command, "--output-dir", tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    samples = [json.loads(text) for text in (tmp_path / "transcripts" / "q8_0.samples.jsonl").read_text().splitlines()]
    assert [(line["index"], line["sample"]) for line in samples] == [(i, s) for s in range(3) for i in range(6)]
    assert len({line["reply"] for line in samples}) > 6  # they are sampled, not greedy
    flexible = scores["rows"][0]["samples"]["flexible"]
    assert list(flexible) == ["pass@1", "pass@2", "pass@3", "maj@3"]
    assert flexible["pass@1"] == pytest.approx(sum(line["flexible"] for line in samples) / 18)
    some = {line["index"] for line in samples if line["flexible"]}
    assert flexible["pass@3"] == pytest.approx(len(some) / 6)


def test_scores_say_how_they_were_made(chain):
    scores = json.loads((chain / "short" / "scores.json").read_text(encoding="utf-8"))
    assert scores["baseline"] == "base"
    assert {"dataset", "fingerprint", "settings", "versions", "date", "remarks"} <= set(scores)
    for row in scores["rows"]:
        assert row["strict"]["low"] <= row["strict"]["accuracy"] <= row["strict"]["high"]
        assert row["questions_per_second"] > 0
        assert 0 <= row["truncated_rate"] <= 1
        assert 1 <= row["mean_completion_tokens"] <= 40
        assert ("against_base" in row) == (row["name"] != "base")


def test_compare_prints_two_runs_and_runs_nothing(chain, tmp_path):
    scores = chain / "short" / "scores.json"
    compared = run_script("evaluate.py", "--compare", scores, scores)
    assert compared.stdout.count("0 : 0 (1)") == 2 * 5
    (tmp_path / "scores.json").write_text(scores.read_text())
    refused = run_script("evaluate.py", "--compare", scores, tmp_path / "scores.json", check=False)
    assert refused.returncode == 2
    assert "share no row with the same questions" in refused.stderr


def test_a_comparison_pairs_the_questions():
    before, after = lines(1, 1, 0, 0, 0), lines(1, 0, 1, 1, 1)
    result = compare(before, after)
    assert (result["won"], result["lost"], result["questions"]) == (3, 1, 5)
    assert result["difference"] == pytest.approx(0.4)
    assert result["p_value"] == pytest.approx(0.625)
    assert compare(before, [dict(line, question="another") for line in after]) is None


def test_a_question_is_paired_wherever_it_stands():
    before = lines(1, 0, 1, 0, 1)
    result = compare(before, [dict(line, index=4 - line["index"]) for line in reversed(before) if line["index"] != 2])
    assert (result["won"], result["lost"], result["questions"]) == (0, 0, 4)
    twice = [dict(line, question="the same") for line in before]
    assert compare(twice, twice[:3])["questions"] == 3
    assert compare(twice, twice)["won"] == 0  # the first with the first, and so on
    assert compare(before, [dict(line, gold="2") for line in before]) is None


def rows(*names):
    places = {"q4_k_m": "gguf/run.q4_k_m.gguf", "base.f16": "gguf/base/base.f16.gguf"}
    return [
        {"name": name, "engine": "llama.cpp" if name in places else "transformers", "path": places.get(name, name)}
        for name in names
    ]


def test_a_gain_of_format_alone_is_called_so():
    answers = {"base": lines(*[1] * 50, strict=False), "adapter": lines(*[1] * 50)}
    (remark,) = add_comparisons(rows("base", "adapter"), answers, "base")
    assert "+100.0 points over base is format alone" in remark
    answers["base"] = lines(*[0] * 50)
    assert add_comparisons(rows("base", "adapter"), answers, "base") == []


def test_too_few_questions_do_not_say_that_a_gain_is_format_alone():
    """A real adapter: 9 : 3 of 40 in any form, and 232 : 100 of all 1,319."""
    base = [dict(line, strict=False) for line in lines(*[0] * 9, *[1] * 3, 1, *[0] * 27)]
    answers = {"base": base, "adapter": lines(*[1] * 9, *[0] * 3, 1, *[0] * 27)}
    (remark,) = add_comparisons(rows("base", "adapter"), answers, "base")
    assert "+25.0 points over base may be format alone" in remark
    assert "it is +15.0 (p = 0.15): 40 questions do not tell" in remark


def test_a_gain_of_format_that_hides_a_loss_says_so():
    base = [dict(line, strict=False) for line in lines(*[1] * 100)]
    answers = {"base": base, "adapter": lines(*[1] * 40, *[0] * 60)}
    (remark,) = add_comparisons(rows("base", "adapter"), answers, "base")
    assert "+40.0 points over base is format, and hides a loss" in remark
    assert "it is -60.0" in remark


def test_a_gguf_that_lost_beyond_noise_is_called_so():
    answers = {"merged": lines(*[1] * 50), "q4_k_m": lines(*[1] * 40, *[0] * 10)}
    (remark,) = add_comparisons(rows("merged", "q4_k_m"), answers, None)
    assert "q4_k_m: worse than merged beyond noise, -20.0 points strict" in remark
    answers["base.f16"] = answers["q4_k_m"]  # never made from merged
    assert add_comparisons(rows("merged", "base.f16"), answers, None) == []
    answers["q4_k_m"] = lines(*[1] * 48, 0, 0)
    assert add_comparisons(rows("merged", "q4_k_m"), answers, None) == []


def test_a_gguf_that_lost_the_form_alone_is_called_so():
    """A real one: 62 % of merged's replies in format, none of q4_k_m's, and too few right by either to tell."""
    merged = [dict(line, in_format=line["index"] < 25) for line in lines(*[0] * 40)]
    answers = {"merged": merged, "q4_k_m": [dict(line, in_format=False) for line in merged]}
    (remark,) = add_comparisons(rows("merged", "q4_k_m"), answers, None)
    assert "q4_k_m: worse than merged beyond noise, -62.5 points in format" in remark


def test_a_stored_verdict_is_the_graders(chain):
    file = chain / "short" / "transcripts" / "adapter.jsonl"
    for text in file.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        stored = {name: line[name] for name in ("strict", "flexible", "in_format")}
        assert verdicts(line["reply"], line["gold"]) == stored


def test_a_run_keeps_its_short_names_beside_strangers(chain, tmp_path):
    import shutil

    from kit.generation.artefacts import artefact_at, find_artefacts

    run = chain / "short"
    other = shutil.copytree(run / "adapter", tmp_path / "adapter")
    found = find_artefacts([str(other), f"{run}/", f"{run}/adapter/"])
    assert [artefact.name for artefact in found][1:] == ["base", "adapter", "merged", "f16", "q8_0"]
    assert found[0].name.endswith("-adapter")
    assert artefact_at(f"{run}/adapter", found).name == "adapter"


def test_a_row_whose_transcript_is_anothers_is_not_kept(chain, gguf, heldout, tmp_path):
    command = ["--dataset", heldout, "--limit", "3", "--output-dir", tmp_path]
    run_script("evaluate.py", gguf, *command)
    run_script("evaluate.py", gguf.with_name("short.f16.gguf"), *command)
    names = [row["name"] for row in json.loads((tmp_path / "scores.json").read_text())["rows"]]
    assert names == ["q8_0", "f16"]
    transcript = tmp_path / "transcripts" / "q8_0.jsonl"
    transcript.write_text(transcript.read_text().replace('"made_by": "', '"made_by": "x'))
    run_script("evaluate.py", gguf.with_name("short.f16.gguf"), *command)
    names = [row["name"] for row in json.loads((tmp_path / "scores.json").read_text())["rows"]]
    assert names == ["f16"]


def test_the_decimal_mark_is_that_of_the_run_unless_told(tmp_path, monkeypatch):
    (tmp_path / "run.yaml").write_text("settings: {decimal_mark: comma}")
    for options, mark in (([], "comma"), (["--decimal-mark", "point"], "point")):
        monkeypatch.setattr("sys.argv", ["evaluate.py", str(tmp_path), *options])
        assert evaluation_settings(evaluate.read_arguments()).decimal_mark == mark
