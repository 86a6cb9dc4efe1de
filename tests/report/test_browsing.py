"""Replies to browse in report.html, in a real browser: the right questions, by keyboard too, and text stays text."""

import html
import json
from itertools import product

import pytest

from kit.evaluation.statistics import wilson
from kit.report import facts
from kit.report.page import write_report
from kit.report.replies import ReplySet, browsable, for_script_tag
from kit.storage.run_folder import RunFolder, append_jsonl

HOSTILE = [
    "</script><script>window.taken = 1</script>",
    '<img src=x onerror="window.taken = 2">',
    "<!--<script>window.taken = 3",
    '<img src="https://example.com/taken.png">',
    "one\u2028two\u2029three & four {{ 7 * 7 }} \\u003c",
    "']});window.taken = 4//",
]
# Each way in which two replies can be judged: strict, flexible, in format, cut off; a strict answer is a flexible one.
JUDGED = [judged for judged in product((False, True), repeat=4) if judged[1] or not judged[0]]
WAYS = list(product(JUDGED, repeat=2))
NAMES = ("base", "adapter")
GONE = "An-uncommonly-long-name-of-a-model-0.5B-Instruct.Q4_K_M"


def line(index: int, row: int, judged: tuple[bool, ...]) -> dict:
    strict, flexible, in_format, truncated = judged
    return {
        "index": index, "question": f"Question {index}? {HOSTILE[index % len(HOSTILE)]}", "gold": str(index),
        "reply": f"{NAMES[row]} says no{index}w: {HOSTILE[index % len(HOSTILE)]}", "strict": strict,
        "flexible": flexible, "in_format": in_format, "truncated": truncated, "made_by": NAMES[row],
    }  # fmt: skip


def score(name: str, lines: list[dict]) -> dict:
    def share(reading):
        right = sum(one[reading] for one in lines)
        low, high = wilson(right, len(lines))
        return {"accuracy": right / len(lines), "low": low, "high": high}

    return {"name": name, "made_by": name, "questions": len(lines), "strict": share("strict"), "format_rate": 0.5,
            "flexible": share("flexible"), "mean_completion_tokens": 9.0, "precision": "float32"}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """A run folder whose two rows were judged in every pair of ways; half of the questions were held out as well."""
    run = RunFolder(tmp_path / ("run" + "-with-a-long-name" * 5))
    run.transcripts.mkdir(parents=True)
    run.held_out.mkdir()
    run.write({"settings": {"model": "m" * 90, "dataset": "d", "max_steps": 20}, "command": "train " + "x" * 300})
    rows = []
    for place, name in enumerate(NAMES):
        lines = [line(index, place, way[place]) for index, way in enumerate(WAYS)]
        append_jsonl(run.transcripts / f"{name}.jsonl", *lines)
        rows.append(score(name, lines))
        held = [{key: one[key] for key in one if key != "truncated"} for one in lines[::2]]
        append_jsonl(run.held_out / f"{('base', 'step-20')[place]}.jsonl", *held)
    gone = score(GONE, lines)  # a file outside the run folder may be called anything; its replies are not there
    scores = {
        "rows": [*rows, gone], "settings": {}, "fingerprint": "f", "baseline": "base", "remarks": [HOSTILE[0]],
        "dataset": f"{HOSTILE[0]}.jsonl", "split": "test",
    }  # fmt: skip
    run.scores_file.write_text(json.dumps(scores))
    held = {"questions": len(WAYS) // 2, "truncated_rate": 0.1, "completion_length": 9.0, "format_rate": 0.5}
    for row, extra in zip(rows, ({"step": 0}, {"step": 20, "rewards": {"r": 1.0}, "reward": 1.0}), strict=True):
        append_jsonl(run.metrics_file, extra | {"heldout": held | {key: row[key] for key in ("strict", "flexible")}})
    return run


def chosen(page, **fields) -> None:
    for name, value in fields.items():
        page.value(
            f"(() => {{ const field = document.getElementById('{name}'); field.value = '{value}';"
            "field.dispatchEvent(new Event(field.type === 'search' ? 'input' : 'change')); })()"
        )


def turned_through(page, name: str) -> list[int]:
    """The questions that a filter shows, by turning from the first to the last."""
    page.value(f"document.querySelector('input[value={name}]').click()")
    page.value("(() => { for (let n = 0; n < 999 && !previous.disabled; n++) previous.click() })()")
    return page.value("""(() => {
      const seen = [], number = () => parseInt(document.querySelector("#shown h3").textContent.split(" ")[1]);
      if (document.querySelector("#shown h3")) seen.push(number());
      for (let n = 0; n < 999 && !next.disabled; n++) { next.click(); seen.push(number()); }
      return seen })()""")


@pytest.mark.parametrize(("reading", "number"), [("strict", 1), ("flexible", 2)])
@pytest.mark.parametrize("swapped", [False, True])
def test_each_filter_shows_the_questions_that_are_like_that(run, page, reading, number, swapped):
    page.open(write_report(run), 1340)
    chosen(page, reading=number, before=int(swapped), after=int(not swapped))
    bit = {"strict": 0, "flexible": 1}[reading]
    ways = [way[::-1] for way in WAYS] if swapped else WAYS
    expected = {
        "all": lambda _, __: True,
        "won": lambda was, now: now[bit] and not was[bit],
        "lost": lambda was, now: was[bit] and not now[bit],
        "neither": lambda was, now: not was[bit] and not now[bit],
        "format": lambda _, now: not now[2],
        "cut": lambda _, now: now[3],
    }
    for name, like in expected.items():
        wanted = [index for index, way in enumerate(ways) if like(*way)]
        assert turned_through(page, name) == wanted
        assert page.value(f"document.getElementById('count-{name}').textContent") == str(len(wanted))


def test_what_models_and_data_say_is_shown_as_text_and_does_nothing(run, page):
    page.open(write_report(run), 1340)
    for index in range(len(HOSTILE)):
        chosen(page, search=f"no{index}w")
        shown = page.value("[...document.querySelectorAll('#shown h3, #shown pre')].map(e => e.textContent)")
        texts = [line(index, 0, JUDGED[0])["question"], *(line(index, row, JUDGED[0])["reply"] for row in (0, 1))]
        assert shown == texts
    assert page.value("window.taken") is None
    assert page.value("document.images.length") == 0
    assert (page.requests, page.errors) == ([], [])


def test_the_page_runs_no_other_script_and_loads_nothing_even_where_an_escape_is_forgotten(run, page):
    page.open(write_report(run), 1340)
    page.value(f"document.body.insertAdjacentHTML('beforeend', {json.dumps(''.join(HOSTILE[:4]))})")
    page.value("document.body.append(Object.assign(document.createElement('script'), {text: 'window.taken = 5'}))")
    page.value("new Promise(done => setTimeout(done, 300))")
    assert page.value("window.taken") is None
    assert not [url for url in page.requests if url.startswith("http")]
    assert any("Content Security Policy" in error for error in page.errors)


def test_by_keyboard_alone(run, page):
    page.open(write_report(run), 1340)
    place = "document.getElementById('place').textContent"
    assert page.value(place) == f"1 of {len(WAYS)}"
    for key, there in (("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2)):
        page.press(key)
        assert page.value(place) == f"{there} of {len(WAYS)}"
    page.value("document.getElementById('search').focus()")
    page.write("SAYS NO7")  # letters in either case
    assert page.value(place) == "1 of 11"
    page.press("ArrowLeft")
    page.press("ArrowRight")  # in a field an arrow moves in the text
    assert page.value(place) == "1 of 11"
    page.press("Tab")
    assert page.value("document.activeElement.value") == "all"
    page.press("ArrowRight")  # and among the filters it chooses one
    assert page.value("document.querySelector('input[name=filter]:checked').value") == "won"
    page.press("ArrowLeft")
    assert page.value(place) == "2 of 11"  # the question stays where another filter has it too
    page.press("Tab")
    assert page.value("document.activeElement.id") == "previous"
    page.press(" ")
    assert page.value(place) == "1 of 11"


def test_replies_of_training_are_there_without_what_its_files_do_not_say(run, page):
    page.open(write_report(run), 1340)
    chosen(page, set=1)
    assert page.value("[...document.getElementById('after').options].map(o => o.text)") == ["base", "step 20"]
    assert turned_through(page, "won") == [
        index for index, (was, now) in enumerate(WAYS) if index % 2 == 0 and now[0] and not was[0]
    ]
    assert page.value("document.getElementById('filter-cut').hidden")
    assert page.value("[...document.querySelectorAll('[data-set]')].map(e => e.hidden)") == [True, False]


def test_a_row_whose_replies_are_gone_is_named(run, page):
    page.open(write_report(run), 1340)
    assert page.value("[...document.getElementById('after').options].map(o => o.text)") == list(NAMES)
    told = page.value("document.querySelector('[data-set]').textContent")
    assert f"All {len(WAYS)} questions of the scores are here, answered by 2 rows. Of {GONE} the replies" in told


@pytest.mark.parametrize("width", [360, 1340])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_cut_off_or_scrolls_sideways(run, page, width, dark):
    page.open(write_report(run), width, dark)
    assert page.value("innerWidth") == width
    assert page.value("document.documentElement.scrollWidth") <= width
    assert (
        page.value("""[...document.querySelectorAll("body *")].filter(e => !e.closest("svg") &&
      (e.getBoundingClientRect().right > innerWidth + 1 || (e.matches(".scroll") && e.scrollWidth > e.clientWidth)))
      .map(e => e.outerHTML.slice(0, 80))""")
        == []
    )
    assert (
        page.value("""[...document.querySelectorAll("svg text")].filter(e => {
      const box = e.getBoundingClientRect(), chart = e.ownerSVGElement.getBoundingClientRect();
      return box.left < chart.left - 1 || box.right > chart.right + 1 }).map(e => e.textContent)""")
        == []
    )
    stacked = page.value("new Set([...document.querySelectorAll('.sides .card')].map(e => e.offsetLeft)).size") == 1
    assert stacked == (width == 360)
    assert (page.value("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)") == dark


def test_in_the_frame_of_the_notebook_it_is_the_same_page(run, page, tmp_path):
    framed = tmp_path / "notebook.html"
    text = html.escape(write_report(run).read_text(encoding="utf-8"))
    framed.write_text(f'<!doctype html><iframe srcdoc="{text}" style="width:100%; height:900px"></iframe>', "utf-8")
    page.open(framed, 1340)
    page.value("frames[0].document.querySelector('nav a:last-child').click()")
    page.value("frames[0].document.getElementById('next').click()")
    assert page.value("frames[0].document.getElementById('place').textContent") == f"2 of {len(WAYS)}"
    assert page.value("frames[0].scrollY") > 500
    assert (page.requests, page.errors) == ([], [])


def test_without_script_charts_tables_and_examples_are_there(run, page):
    page.open(write_report(run), 1340, script=False)
    assert page.value("getComputedStyle(document.getElementById('browse')).display") == "none"
    assert page.value("document.querySelectorAll('#pairs .card pre').length") == 6
    assert page.value("document.getElementById('pairs').offsetHeight") > 100
    assert page.value("[...document.querySelectorAll('svg .dot')].every(e => e.getBoundingClientRect().width > 3)")
    assert "shows the others too" in page.value("document.body.innerText")


def test_the_page_holds_first_the_questions_on_which_rows_differ():
    right, wrong, formless = JUDGED[-1], JUDGED[0], JUDGED[1]
    before = {index: line(index, 0, wrong) for index in range(90)}
    after = {index: line(index, 1, right if index % 3 == 2 else formless if index == 40 else wrong) for index in before}
    replies = ReplySet("questions", "transcripts/", list(NAMES), [before, after], 0, 1)
    whole = browsable(replies, 10**9)
    assert (whole.shown, whole.questions, whole.differ, whole.differ_shown) == (90, 90, 31, 31)
    most = len(whole.json) // 2
    half = browsable(replies, most)
    assert most * 0.8 < len(half.json.encode()) < most + 300  # the names of the rows come on top
    shown = [question[0] for question in json.loads(half.json)["questions"]]
    assert shown == sorted(shown)
    assert {40, *range(2, 90, 3)} < set(shown)
    few = [question[0] for question in json.loads(browsable(replies, most // 4).json)["questions"]]
    assert few == list(range(2, 90, 3))[: len(few)]
    assert len(few) > 5


def test_a_reply_that_two_rows_gave_stands_once_and_an_endless_one_is_cut():
    said = "the same " * 100
    rows = [{0: line(0, 0, JUDGED[0]) | {"reply": reply}} for reply in (said, said, "x" * 10**6)]
    found = browsable(ReplySet("q", "f", ["a", "b", "c"], rows, 0, 1), 10**5).json
    (question,) = json.loads(found)["questions"]
    assert (found.count(said), question[3][1][1]) == (1, 0)
    assert len(question[3][2][1]) < 9_000


@pytest.mark.parametrize("text", HOSTILE)
def test_data_in_a_script_element_is_the_same_and_cannot_end_it(text):
    safe = for_script_tag(json.dumps([text], ensure_ascii=False))
    assert json.loads(safe) == [text]
    assert not set("<>&\u2028\u2029") & set(safe)


def test_completions_are_of_an_early_a_middle_and_a_late_step_and_a_line_cut_short_is_left_out(run):
    for step in range(1, 6):
        paid = [{"step": step, "question": "q", "gold": "1", "reply": f"{step}-{pay}", "rewards": {"r": pay}} for pay in
                (1.0, 3.0, 2.0)]  # fmt: skip
        append_jsonl(run.samples_file, *paid)
    with run.samples_file.open("a") as file:
        file.write('{"step": 5, "question": "q", "gold"')
    shown = [sample["reply"] for sample in facts.samples(run)]
    assert shown == ["1-3.0", "1-1.0", "3-3.0", "3-1.0", "5-3.0", "5-1.0"]
    assert all(f"<pre>{reply}</pre>" in write_report(run).read_text() for reply in shown)
