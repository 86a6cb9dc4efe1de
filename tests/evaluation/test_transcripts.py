"""No evaluation deletes another's replies, asks for one that is there, or lets scores.json speak of others."""

import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from kit.cli.errors import UserError
from kit.evaluation import answering as answers
from kit.evaluation import scores_file
from kit.evaluation.answering import EvaluationSettings, answer_questions
from kit.evaluation.run_scores import drop_outdated_rows
from kit.evaluation.score_tables import print_scores
from kit.evaluation.scores import row_of
from kit.evaluation.scores_file import compare_files, read_scores, write_scores
from kit.evaluation.transcripts import lines_of
from kit.generation import runtime
from kit.generation.artefacts import find_artefacts
from kit.generation.engine import Completion
from kit.generation.runtime import Runtime, Server
from kit.storage.atomic import file_hash
from kit.storage.run_folder import RunFolder, run_folder_of
from kit.task.questions import fingerprint

QUESTIONS = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(12)]


class Killed(BaseException):
    pass


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """``evaluate(questions, **settings)`` as evaluate.py does it, with an engine that counts what it is asked."""
    (tmp_path / "x.gguf").write_bytes(b"GGUF")

    def run(questions, killed_after=None, folder="out", **settings):
        asked = []

        @contextmanager
        def open_engine(*_):
            def generate(prompts, sampling):
                for place, prompt in enumerate(prompts):
                    if len(asked) == killed_after:
                        raise Killed
                    asked.append(prompt[1]["content"])
                    number = prompt[1]["content"].split()[0]
                    text = f"<reasoning>so</reasoning><answer>{number}</answer> {sampling.temperature}"
                    yield [(place, Completion(text, 9, "stop"))]

            yield SimpleNamespace(generate=generate)

        monkeypatch.setattr(answers, "open_engine", open_engine)
        output = tmp_path / folder
        (output / "transcripts").mkdir(parents=True, exist_ok=True)
        settings = EvaluationSettings(**{"system_prompt": "Be brief.", "max_completion_length": 200, **settings})
        try:
            rows = [
                row_of(answer_questions(artefact, settings.runtime_of(artefact), questions, settings, output))
                for artefact in find_artefacts([str(tmp_path / "x.gguf")])
            ]
        except Killed:
            return asked
        write_scores(output, rows, {"fingerprint": fingerprint(questions)}, settings)
        return asked

    return run


def counted(folder):
    scores = read_scores(folder / "scores.json")
    (row,) = scores["rows"]
    return row["questions"], [line["question"] for line in lines_of(folder, row, scores["fingerprint"])]


def test_a_look_in_between_costs_no_reply(evaluate, tmp_path, capsys):
    everything = [row["question"] for row in QUESTIONS]
    assert evaluate(QUESTIONS) == everything
    others = [{"question": "1 + 2?", "answer": "3"}]
    assert evaluate(QUESTIONS[:3]) == []  # the first of what was asked
    assert evaluate(QUESTIONS[:2], max_completion_length=100) == everything[:2]
    assert evaluate(others) == ["1 + 2?"]
    assert "are kept in" in capsys.readouterr().out
    assert counted(tmp_path / "out") == (1, ["1 + 2?"])
    assert evaluate(QUESTIONS) == evaluate(others) == evaluate(QUESTIONS[:2], max_completion_length=100) == []
    assert counted(tmp_path / "out") == (2, everything[:2])
    (tmp_path / "x.gguf").write_bytes(b"GGUF of another model")
    assert evaluate(QUESTIONS) == everything
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert evaluate(QUESTIONS) == []


def test_a_look_that_is_killed_leaves_the_scores_their_replies(evaluate, tmp_path):
    evaluate(QUESTIONS)
    before = counted(tmp_path / "out")
    assert len(evaluate(QUESTIONS[:4], killed_after=2, max_completion_length=100)) == 2
    assert counted(tmp_path / "out") == before == (12, [row["question"] for row in QUESTIONS])
    scores = tmp_path / "out" / "scores.json"
    assert compare_files(scores, scores)[1][0][1]["questions"] == 12
    assert len(evaluate(QUESTIONS[:4], max_completion_length=100)) == 2
    assert evaluate(QUESTIONS) == []


def test_samples_that_were_not_asked_for_this_time_stay(evaluate):
    assert len(evaluate(QUESTIONS, samples=3)) == 12 * 4
    assert evaluate(QUESTIONS, samples=1) == []
    assert len(evaluate(QUESTIONS[:5], samples=2, temperature=0.5)) == 5 * 2
    assert evaluate(QUESTIONS, samples=3) == []


def test_samples_that_were_drawn_otherwise_are_not_one_table(evaluate, tmp_path, capsys):
    def scored_before_as(name):
        scores = tmp_path / "out" / "scores.json"
        content = json.loads(scores.read_text())
        held = tmp_path / f"{name}.gguf"
        shutil.copy(tmp_path / "x.gguf", held)
        shutil.copy(tmp_path / "out" / "transcripts" / "x.jsonl", tmp_path / "out" / "transcripts" / f"{name}.jsonl")
        other = content["rows"][0] | {"name": name, "path": str(held)}
        scores.write_text(json.dumps(content | {"rows": [*content["rows"], other]}))

    evaluate(QUESTIONS, samples=4)
    scored_before_as("y")
    evaluate(QUESTIONS, samples=4)
    scores = read_scores(tmp_path / "out" / "scores.json")
    assert [("samples" in row) for row in scores["rows"]] == [True, True]
    evaluate(QUESTIONS, samples=2)
    scores = read_scores(tmp_path / "out" / "scores.json")
    assert [row.get("samples", {}).get("count") for row in scores["rows"]] == [None, 2]
    assert "no longer shows the samples of y" in capsys.readouterr().out
    print_scores(scores)


def test_a_file_of_questions_that_was_mended_is_not_asked_anew(evaluate, tmp_path):
    evaluate(QUESTIONS)
    mended = [QUESTIONS[0], *QUESTIONS[2:5], {"question": "5 + 5?", "answer": "5"}, QUESTIONS[0]]
    assert evaluate(mended) == [QUESTIONS[0]["question"]]  # stands twice now
    lines = [json.loads(text) for text in (tmp_path / "out" / "transcripts" / "x.jsonl").read_text().splitlines()]
    assert [(line["index"], line["gold"], line["strict"]) for line in lines[3:5]] == [(3, "8", False), (4, "5", True)]


def test_transcripts_from_before_there_were_question_sets_are_read(evaluate, tmp_path):
    evaluate(QUESTIONS)
    file = tmp_path / "out" / "transcripts" / "x.jsonl"
    old = [json.loads(text) for text in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "question_set"}) + "\n" for line in old))
    assert counted(tmp_path / "out")[0] == len(counted(tmp_path / "out")[1]) == 12
    assert evaluate(QUESTIONS[:6]) == []
    assert evaluate(QUESTIONS) == []
    assert [json.loads(text) for text in file.read_text().splitlines()] == old


def test_a_line_that_was_cut_short_spoils_no_other(evaluate, tmp_path):
    assert len(evaluate(QUESTIONS, killed_after=5)) == 5
    with (tmp_path / "out" / "transcripts" / "x.jsonl").open("a") as file:
        file.write('{"index": 5, "question": "cut sho')
    assert len(evaluate(QUESTIONS, killed_after=3)) == 3
    assert len(evaluate(QUESTIONS)) == 4


def test_scores_without_their_replies_are_called_so(evaluate, tmp_path):
    evaluate(QUESTIONS)
    evaluate(QUESTIONS[1:], folder="other")
    one, other = (tmp_path / name / "scores.json" for name in ("out", "other"))
    title, _, notes = compare_files(one, other)
    assert "11 questions" in title
    assert notes == [f"left out, as they have no partner: 1 of the 12 questions of {one}"]
    (tmp_path / "other" / "transcripts" / "x.jsonl").write_text("")
    with pytest.raises(UserError, match=r"the replies of x of .*other/scores\.json are not in transcripts/"):
        compare_files(one, other)


def test_a_row_that_is_another_artefacts_from_now_on_is_named(evaluate, tmp_path, capsys):
    evaluate(QUESTIONS[:2])
    scores, other = tmp_path / "out" / "scores.json", tmp_path / "other" / "x.gguf"
    evaluate(QUESTIONS[:2])
    assert "from now on" not in capsys.readouterr().out
    other.parent.mkdir()
    shutil.copy(tmp_path / "x.gguf", other)
    content = json.loads(scores.read_text())
    scores.write_text(json.dumps(content | {"rows": [content["rows"][0] | {"path": str(other)}]}))
    evaluate(QUESTIONS[:2])
    assert f"x is {tmp_path}/x.gguf from now on, no longer {other}" in capsys.readouterr().out


def test_rows_that_leave_scores_json_are_named(evaluate, tmp_path, capsys):
    evaluate(QUESTIONS)
    scores = tmp_path / "out" / "scores.json"
    content = json.loads(scores.read_text())
    scores.write_text(json.dumps(content | {"rows": [content["rows"][0] | {"name": "base"}, *content["rows"]]}))
    evaluate(QUESTIONS[:3])
    assert "scores.json no longer shows base: they answered other questions or settings" in capsys.readouterr().out


@pytest.mark.parametrize(
    "other",
    [{"system_prompt": "Be long."}, {"max_completion_length": 100}, {"decimal_mark": "comma"}, {"task": "choice"}],
    ids=lambda other: next(iter(other)),
)
def test_rows_of_other_settings_leave_the_table(evaluate, tmp_path, capsys, other):
    evaluate(QUESTIONS)
    scores = tmp_path / "out" / "scores.json"
    content = json.loads(scores.read_text())
    scores.write_text(json.dumps(content | {"rows": [content["rows"][0] | {"name": "base"}, *content["rows"]]}))
    evaluate(QUESTIONS, **other)
    assert [row["name"] for row in read_scores(scores)["rows"]] == ["x"]
    assert "no longer shows base: they answered other questions or settings" in capsys.readouterr().out


def test_rows_that_were_judged_otherwise_leave_the_table(evaluate, tmp_path, capsys, monkeypatch):
    evaluate(QUESTIONS)
    scores = tmp_path / "out" / "scores.json"
    content = json.loads(scores.read_text())
    scores.write_text(json.dumps(content | {"rows": [content["rows"][0] | {"name": "base"}, *content["rows"]]}))
    monkeypatch.setattr(scores_file, "grader_hash", lambda: "a newer kit's")
    assert evaluate(QUESTIONS) == []
    assert "no longer shows base: they were judged by another version of the kit or of" in capsys.readouterr().out


def test_what_two_scores_were_computed_and_judged_by_is_told_and_what_changes_no_greedy_reply_is_not(
    evaluate, tmp_path
):
    evaluate(QUESTIONS)
    evaluate(QUESTIONS, folder="other", seed=5)
    one, other = (tmp_path / name / "scores.json" for name in ("out", "other"))
    title, _, notes = compare_files(one, other)
    assert (title, notes) == (f"{other} minus {one}, 12 questions", [])
    content = json.loads(other.read_text())
    content["rows"][0] |= {"engine": "vllm"}
    other.write_text(json.dumps(content | {"grader": "another"}))
    _, _, notes = compare_files(one, other)
    assert [note[:31] for note in notes] == ["x was computed otherwise: llama", "judged by two versions of the k"]


@pytest.fixture
def scored(evaluate, tmp_path):
    """A run whose GGUF file was scored."""
    run = RunFolder(tmp_path / "out")
    run.gguf.mkdir(parents=True)
    run.write({"settings": {}})
    (tmp_path / "x.gguf").rename(run.gguf / "x.gguf")
    (tmp_path / "x.gguf").symlink_to(run.gguf / "x.gguf")
    evaluate(QUESTIONS)
    scores = read_scores(run.scores_file)
    scores["rows"][0]["path"] = str(run.gguf / "x.gguf")
    run.scores_file.write_text(json.dumps(scores))
    return run


def test_a_run_shows_no_scores_of_what_it_was_before(scored, tmp_path, capsys):
    before = scored.scores_file.read_text()
    drop_outdated_rows(scored)
    assert scored.scores_file.read_text() == before
    elsewhere = json.loads(before)["rows"][0] | {"name": "another's", "path": str(tmp_path / "there" / "x.gguf")}
    cautions = {"cautions": {scored.path.name: ["It knew them."]}}
    content = json.loads(before) | cautions
    scored.scores_file.write_text(json.dumps(content | {"rows": [*content["rows"], elsewhere]}))
    (scored.gguf / "x.gguf").write_bytes(b"GGUF, made anew")
    drop_outdated_rows(scored)
    assert [row["name"] for row in read_scores(scored.scores_file)["rows"]] == ["another's"]
    assert "scores.json no longer shows x: evaluate.py scores what is there now" in capsys.readouterr().out
    scored.scores_file.write_text(before)
    drop_outdated_rows(scored)
    assert not scored.scores_file.exists()


def test_a_file_that_was_deleted_and_a_run_that_was_renamed_keep_their_scores(scored, tmp_path):
    (scored.gguf / "x.gguf").unlink()
    drop_outdated_rows(scored)
    assert len(read_scores(scored.scores_file)["rows"]) == 1
    renamed = RunFolder(scored.path.rename(tmp_path / "before"))
    scored.gguf.mkdir(parents=True)
    scored.write({"settings": {}})
    (scored.gguf / "x.gguf").write_bytes(b"GGUF of a new run in its place")
    drop_outdated_rows(renamed)
    assert len(read_scores(renamed.scores_file)["rows"]) == 1


def test_a_run_that_was_renamed_shows_no_scores_of_what_it_was_before(scored, tmp_path):
    moved = RunFolder(scored.path.rename(tmp_path / "moved"))
    drop_outdated_rows(moved)
    assert len(read_scores(moved.scores_file)["rows"]) == 1
    scores = read_scores(moved.scores_file)
    gone = {"another's": "adapter", "base": "merged"}  # as a run's whose base was another run's merged model
    others = [scores["rows"][0] | {"name": name, "path": f"/gone/{place}"} for name, place in gone.items()]
    unmade = scores["rows"][0] | {"name": "q4_0", "path": str(scored.gguf / "out.q4_0.gguf")}
    for place in gone.values():
        (moved.path / place).mkdir()
    moved.scores_file.write_text(json.dumps(scores | {"rows": [*scores["rows"], *others, unmade]}))
    drop_outdated_rows(moved)
    assert len(read_scores(moved.scores_file)["rows"]) == 4
    (moved.gguf / "x.gguf").write_bytes(b"GGUF, made anew")
    drop_outdated_rows(moved)
    assert [row["name"] for row in read_scores(moved.scores_file)["rows"]] == list(gone)


def test_rows_of_two_engines_in_one_table_are_told_apart(scored):
    scores = read_scores(scored.scores_file)
    (gguf,) = scores["rows"]
    base = gguf | {"name": "base", "path": "m", "engine": "vllm", "precision": "bfloat16"}
    for engine, precision, said in (
        ("vllm", "bfloat16, 16-bit base", []),
        ("transformers", "float32, 16-bit base", ["base by vllm in bfloat16, adapter by transformers in float32"]),
        ("vllm", "float32, 4-bit base", ["base by vllm in bfloat16, adapter by vllm in float32"]),
        ("server", "as served, m", ["base by vllm in bfloat16, adapter by server in as served, m"]),
    ):
        adapter = gguf | {"name": "adapter", "path": "m", "engine": engine, "precision": precision}
        remarks = scores_file.with_rows(scored.path, scores, [base, adapter, gguf], "base")["remarks"]
        assert [re.findall("not answered alike: (.*);", remark)[0] for remark in remarks if "alike" in remark] == said


@pytest.mark.parametrize("place", ["x.gguf", "base/x.f16.gguf", "../adapter", "../merged/model.safetensors", ".."])
def test_a_path_within_a_run_is_of_the_run_from_wherever_it_is_named(scored, monkeypatch, place):
    monkeypatch.chdir(scored.gguf)
    Path(place).parent.mkdir(exist_ok=True)
    if not Path(place).is_dir():
        Path(place).touch()
    assert run_folder_of(Path(place)).path.resolve() == scored.path
    assert run_folder_of(Path("../..")) is None
    assert run_folder_of(Path("someone/their-model")) is None  # a Hub id, which lies nowhere
    monkeypatch.chdir(scored.path.parent)
    assert run_folder_of(Path("out/gguf") / place).path == Path("out")


def test_what_is_said_of_an_export_is_said_as_it_is_now(scored):
    scored.adapter.mkdir()
    adapter = scored.adapter / "adapter_model.safetensors"
    adapter.write_bytes(b"trained further")
    for exported, said in (("another", 1), (file_hash(adapter), 0)):
        scored.export_file.write_text(json.dumps({"merged": {"adapter_sha256": exported}}))
        drop_outdated_rows(scored)
        remarks = read_scores(scored.scores_file)["remarks"]
        assert sum("out was trained further since its export" in remark for remark in remarks) == said


def test_what_is_known_of_a_run_stays_as_long_as_its_rows(scored):
    known = {scored.path.name: ["It knew them."], "gone": ["So did it."]}
    scored.scores_file.write_text(json.dumps(read_scores(scored.scores_file) | {"cautions": known}))
    settings = EvaluationSettings(system_prompt="Be brief.", max_completion_length=200)
    scores = write_scores(scored.path, [], {"fingerprint": fingerprint(QUESTIONS)}, settings)
    assert [row["name"] for row in scores["rows"]] == ["x"]
    assert scores["remarks"] == ["It knew them."]
    asked_again = write_scores(
        scored.path, [], {"fingerprint": fingerprint(QUESTIONS)}, settings, cautions={scored.path.name: []}
    )
    assert asked_again["remarks"] == []


def test_a_file_that_the_export_did_not_make_again_goes_with_those_that_it_did(scored):
    content = read_scores(scored.scores_file)
    other = content["rows"][0] | {"name": "q4", "path": str(scored.gguf / "y.gguf")}
    scored.scores_file.write_text(json.dumps(content | {"rows": [*content["rows"], other]}))
    drop_outdated_rows(scored)
    assert len(read_scores(scored.scores_file)["rows"]) == 2
    (scored.gguf / "x.gguf").write_bytes(b"GGUF, made anew")
    drop_outdated_rows(scored)
    assert not scored.scores_file.exists()


def test_from_another_working_directory_what_is_known_stays(scored, monkeypatch):
    content = read_scores(scored.scores_file)
    content["rows"][0]["path"] = f"{scored.path.name}/gguf/x.gguf"
    scored.scores_file.write_text(json.dumps(content | {"exports": ["Old."], "remarks": ["Old."]}))
    monkeypatch.chdir(scored.path)
    drop_outdated_rows(scored)
    assert read_scores(scored.scores_file)["remarks"] == ["Old."]


def test_whatever_changes_replies_asks_anew(evaluate, monkeypatch):
    def engine(name, precision):
        monkeypatch.setattr(EvaluationSettings, "runtime_of", lambda *_: Runtime(name, "float32", precision))

    engine("vllm", "float32")
    assert [len(evaluate(QUESTIONS)), len(evaluate(QUESTIONS, batch_size=1))] == [12, 0]
    assert len(evaluate(QUESTIONS, system_prompt="Be long.")) == 12
    engine("vllm", "bfloat16")
    assert len(evaluate(QUESTIONS)) == 12
    engine("transformers", "float32")
    assert len(evaluate(QUESTIONS)) == 12
    engine("vllm", "float32")
    assert evaluate(QUESTIONS) == evaluate(QUESTIONS, system_prompt="Be long.") == []


def test_another_server_is_another_model(evaluate, monkeypatch):
    monkeypatch.setattr(runtime, "served_model", lambda *_: "the same name")
    served = [Server("http://one"), Server("http://two"), Server("http://one/v1/")]
    assert [len(evaluate(QUESTIONS, server=server)) for server in served] == [12, 12, 0]
