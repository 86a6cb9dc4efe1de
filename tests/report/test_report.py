"""report.html of a real run and the console: every part is there, and what models write is text."""

import json
import re
import shutil

import pytest

from kit.report.page import write_report
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder, append_jsonl, read_jsonl
from kit.training.alarms import Alarm
from kit.training.console import Console
from kit.training.run_log import RunLog
from tests.conftest import run_script

HOSTILE = (
    "<script>document.title='taken over'</script>\x1b[2J\x1b[31m<b>bold</b></pre><img src=x onerror=alert(1)>\u202e"
)


@pytest.fixture
def run(chain, tmp_path):
    """A copy of the tests' run with 40 steps, alarms, and a completion that is an attack."""
    copy = RunFolder(tmp_path / "run")
    copy.path.mkdir()
    for name in ("run.yaml", "scores.json", "metrics.jsonl", "samples.jsonl"):
        shutil.copy(chain / "short" / name, copy.path / name)
    shutil.copytree(chain / "short" / "transcripts", copy.transcripts)
    shutil.copytree(chain / "short" / "adapter", copy.adapter)
    row, sample = read_jsonl(copy.metrics_file)[-1], read_jsonl(copy.samples_file)[-1]
    for step in range(row["step"] + 1, 41):
        alarms = {"alarms": [{"name": "cut off", "says": f"80% {HOSTILE}"}]} if step in (20, 40) else {}
        append_jsonl(copy.metrics_file, row | {"step": step, "reward": 1 + step / 20, "kl": step / 1000} | alarms)
        append_jsonl(copy.samples_file, sample | {"step": step, "reply": HOSTILE, "question": HOSTILE})
    return copy


def test_every_part_is_there_and_what_a_model_writes_is_text(run):
    page = write_report(run).read_text(encoding="utf-8")
    headings = re.findall(r"<h2.*?>(.*?)</h2>", page)
    assert headings == ["Alarms", "Scores", "The same question, before and after", "Training", "Completions while it "
                        "trained", "How it was made"]  # fmt: skip
    assert "train_lora.py --config tests/short.yaml" in page
    assert re.findall("<script.*?>", page) == ['<script type="application/json" id="replies">', "<script>"]
    assert "<img" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:|//)", page)  # needs no network


@pytest.mark.parametrize("width", [360, 1340])
def test_in_a_real_browser_curves_are_drawn_and_every_reply_can_be_browsed(run, page, width):
    page.open(write_report(run), width)
    assert (page.requests, page.errors) == ([], [])
    assert page.value("document.documentElement.scrollWidth") <= page.value("innerWidth") == width
    assert page.value("document.querySelectorAll('.chart').length") >= 10
    lengths = page.value("[...document.querySelectorAll('.curve')].map(curve => curve.getTotalLength())")
    assert len([length for length in lengths if length > 50]) >= 3  # the rows that change; others are straight lines
    assert page.value("[...document.querySelectorAll('#before option')].map(o => o.text)") == [
        "base", "adapter", "merged", "f16", "q8_0",
    ]  # fmt: skip
    assert page.value("document.getElementById('place').textContent") == "1 of 50"
    told = {row["name"]: row for row in json.loads(run.scores_file.read_text())["rows"]}
    right = round(50 * told["adapter"]["strict"]["accuracy"])
    page.value("document.getElementById('before').value = 1")
    page.value("document.getElementById('before').dispatchEvent(new Event('change'))")
    assert page.value("document.getElementById('count-neither').textContent") == str(50 - right)


def test_the_report_can_be_written_by_hand(chain, tmp_path):
    (chain / "short" / "report.html").unlink(missing_ok=True)
    said = run_script("-m", "kit.report.page", chain / "short").stdout
    assert (chain / "short" / "report.html").is_file()
    assert "report.html" in said
    refused = run_script("-m", "kit.report.page", tmp_path, check=False)
    assert (refused.returncode, "is no run folder" in refused.stderr) == (2, True)


def test_the_console_shows_what_a_model_writes_as_text(capsys):
    console = Console(40)
    console.sample(10, {"question": HOSTILE, "gold": "5", "reply": HOSTILE, "rewards": {"correctness": 1.0}})
    console.alarm(Alarm("cut off", HOSTILE, "try"))
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert "␛[2J" in said
    assert "<script>" in said
    assert "correctness 1" in said


def test_the_time_left_counts_neither_loading_nor_the_first_step_that_compiles(capsys):
    times = iter([0, 300, 360, 362, 366])  # made; begun after five minutes of loading; after steps 5, 6 and 7
    console = Console(24, done=4, clock=lambda: next(times))
    console.begin()
    for step in (5, 6, 7):
        console.step({"step": step})
    left = [line.rsplit("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert left == ["19 min left", "36 s left", "51 s left"]


def test_what_could_not_be_judged_is_shown_so_and_ends_nothing(tmp_path, capsys):
    """A reward function may answer None to every completion: TRL logs no reward then."""
    run = RunFolder(tmp_path)
    run.write({"settings": Settings(max_steps=3).as_config()})
    log = RunLog(run, Settings(max_steps=3))
    metrics = log.write_step(1, {"reward": None, "grad_norm": float("nan"), "completions/mean_length": 5.0})
    assert metrics["reward"] is None
    assert metrics["grad_norm"] is None
    assert "1/3  reward ?" in capsys.readouterr().out
    assert "NaN" not in run.metrics_file.read_text()
    assert '<h2 id="training">Training</h2>' in write_report(run).read_text()


def test_training_shows_a_line_a_step_with_the_time_left(chain):
    lines = (chain / "train.log").read_text(encoding="utf-8").splitlines()
    steps = [line for line in lines if re.match(r"\d/3  reward ", line)]
    assert len(steps) == 3
    assert all("tokens" in line and line.endswith(" left") for line in steps)
    assert (chain / "short" / "report.html").is_file()
