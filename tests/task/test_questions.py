"""Reading questions: what is wrong is named with its line, before anything heavy starts."""

import csv
import json
from decimal import Decimal

import pytest

from kit.cli.errors import UserError
from kit.grading import gold_answer
from kit.numbers.reading import use_decimal_mark
from kit.task.data_files import as_meant
from kit.task.questions import fingerprint, load_questions

GOOD = '{"question": "9 + 9?", "answer": "9 + 9 = 18\\n#### 18"}'


def write(tmp_path, *lines):
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def test_rows_come_in_order_and_blank_lines_do_not_count(tmp_path):
    file = write(tmp_path, GOOD, "", GOOD.replace("9 + 9?", "Again?"))
    assert [row["question"] for row in load_questions(file)] == ["9 + 9?", "Again?"]


def test_plain_columns_of_other_names(tmp_path):
    file = write(tmp_path, '{"q": "9 + 9?", "a": 18, "source": "me"}')
    (row,) = load_questions(file, question_column="q", answer_column="a")
    assert (row["question"], row["answer"], row["columns"]["source"]) == ("9 + 9?", "18", "me")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"question": "9 + 9?"', "line 2: is not JSON"),
        ('{"question": "9 + 9?"}', "line 2: has no 'answer'"),
        ('{"question": "9 + 9?", "answer": "#### twelve"}', "line 2: no single number"),
        ("[1, 2]", "line 2: is no JSON object"),
        ('{"question": NaN, "answer": 5}', "line 2: has no 'question'"),
        (r'{"question": "9 + 9 \ud83d?", "answer": "18"}', r"line 2: holds half a character \(\\ud83d\)"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, line, words):
    with pytest.raises(UserError, match=words):
        load_questions(write(tmp_path, GOOD, line))


@pytest.mark.parametrize("write", [json.dumps, str], ids=["JSON", "Python"])
def test_a_chat_that_was_written_as_a_text_is_a_chat(tmp_path, write):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What's 9 + 9?"}]
    file = tmp_path / "data.csv"
    with file.open("w", newline="") as handle:
        csv.writer(handle).writerows([["prompt", "answer"], [write(chat), "18"]])
    (row,) = load_questions(str(file), question_column="prompt")
    assert row["question"] == "What's 9 + 9?"
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"prompt": str(chat).replace(", {", " {"), "answer": "18"}))
    with pytest.raises(UserError, match="line 1: holds a chat that was written as a text"):
        load_questions(str(file), question_column="prompt")
    file.write_text(json.dumps({"prompt": "[{'role': 'user', 'content': '9 + 9?', 'name': nan}]", "answer": "18"}))
    with pytest.raises(UserError, match="line 1: holds a chat that was written as a text"):  # by pandas
        load_questions(str(file), question_column="prompt")


@pytest.mark.parametrize(
    "question",
    [
        '[{"role": "admin", "name": "Bo"}]\nHow many admins?',
        '[{"content": 5}]',
        '[{"role": "admin", "name": "user"}]',
        '[{"role": "user", "content": f(x)}]\nIs it valid? [yes]',
        '[{"role": "user", "content": prompt}]',
    ],
)
def test_a_question_that_only_begins_like_a_chat_is_a_question(tmp_path, question):
    (row,) = load_questions(write(tmp_path, json.dumps({"question": question, "answer": "1"})))
    assert row["question"] == question


def test_what_is_odd_about_the_data_is_said(tmp_path, capsys):
    rows = [{"instruction": "Add.", "input": "2 and 2", "answer": 4}, {"instruction": "Add.", "input": "", "answer": 5}]
    load_questions(write(tmp_path, *map(json.dumps, rows)), question_column="instruction")
    said = capsys.readouterr().out
    assert "1 questions stand there with different answers, such as 'Add.' (4 and 5)" in said
    assert "1 rows have input beside the question, which is not asked" in said
    load_questions(write(tmp_path, GOOD, GOOD))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("choices", {"text": ["3", "4"], "label": ["A", "B"]}, True), ("options", ["three", "four"], True),
        ("context", "It is Monday.", True), ("options", ["2", "4"], False), ("context", "", False),
        ("input", "x", False),
    ],
)  # fmt: skip
def test_what_others_ask_from_a_second_column_is_said(tmp_path, capsys, name, value, said):
    row = {"question": "2 + 2? (2) or (4)", "answer": 4, name: value}
    load_questions(write(tmp_path, json.dumps(row)))
    assert (f"1 rows have {name} beside the question" in capsys.readouterr().out) is said


def test_answers_that_are_no_numbers_are_shown_the_way(tmp_path):
    with pytest.raises(UserError, match="--task says what they are"):
        load_questions(write(tmp_path, '{"question": "q", "answer": "Paris"}'))
    with pytest.raises(UserError) as error:
        load_questions(write(tmp_path, GOOD, '{"question": "q", "answer": "Paris"}'))
    assert "--task" not in str(error.value)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_questions(str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="holds no questions"):
        load_questions(write(tmp_path, ""))


def test_the_fingerprint_tells_data_apart_not_files():
    rows = [{"question": "9 + 9?", "answer": "18"}]
    assert fingerprint(rows) == fingerprint([dict(reversed(rows[0].items()))])
    assert fingerprint(rows) != fingerprint([{"question": "9 + 9?", "answer": "19"}])


ASKED = {"role": "user", "content": "9 + 9?"}
SHAPES = {
    "a chat": ({"q": [{"role": "system", "content": "Be brief."}, ASKED], "a": "18"}, "q", "a"),
    "an earlier turn": (
        {"q": [ASKED | {"content": "Hi"}, {"role": "assistant", "content": "Yes?"}, ASKED], "a": "18"},
        "q",
        "a",
    ),
    "content in parts": ({"q": [{"role": "user", "content": [{"type": "text", "text": "9 + 9?"}]}], "a": 18}, "q", "a"),
    "verl's rows": ({"q": [ASKED], "reward_model": {"style": "rule", "truth": "18"}}, "q", "reward_model.truth"),
    "a place in a list": ({"m": [ASKED, {"role": "assistant", "content": "#### 18"}]}, "m", "m.1.content"),
    "a name with a point": ({"a.q": "9 + 9?", "a": {"q": "other"}, "b": 18}, "a.q", "b"),
}


@pytest.mark.parametrize(("row", "question", "answer"), SHAPES.values(), ids=SHAPES)
def test_questions_and_answers_however_deep_they_lie(tmp_path, row, question, answer, capsys):
    (loaded,) = load_questions(write(tmp_path, json.dumps(row)), question_column=question, answer_column=answer)
    assert (loaded["question"], loaded["gold"]) == ("9 + 9?", "18")
    further = isinstance(row.get(question), list) and len(row[question]) > 1
    assert ("1 rows hold more messages" in capsys.readouterr().out) is further


NO_TEXTS = {
    "a list": ({"question": "9 + 9?", "answer": ["18"]}, "'answer' is a list, not a text; .* --answer-column answer.0"),
    "an object": ({"question": "9 + 9?", "answer": {"value": 18}}, "is an object, not a text; .* answer.value"),
    "a question in a list": ({"question": ["9 + 9?"], "answer": "18"}, "'question' is a list, not a text"),
    "a chat that asks nothing": ({"question": [{"role": "system", "content": "Hi"}], "answer": "18"}, "is a list"),
    "a truth": ({"question": "9 + 9?", "answer": True}, "is true or false, not a text"),
    "spaces": ({"question": "   ", "answer": "18"}, "has nothing in 'question'"),
    "another name": ({"problem": "9 + 9?", "answer": "18"}, "has no 'question'; it has problem, answer: "),
}


@pytest.mark.parametrize(("row", "words"), NO_TEXTS.values(), ids=NO_TEXTS)
def test_what_is_no_text_never_becomes_one(tmp_path, row, words):
    with pytest.raises(UserError, match=words):
        load_questions(write(tmp_path, json.dumps(row)))


def test_the_fingerprint_of_recorded_runs_stays(tmp_path):
    """Runs have it in run.yaml; further columns, and what they are called, are no part of it."""
    row = {"q": "9 + 9?", "answer": "9 + 9 = 18\n#### 18", "level": 1}
    rows = load_questions(write(tmp_path, json.dumps(row)), question_column="q")
    assert fingerprint(rows) == "06d1b777fbf298cb"


def test_a_mark_that_may_be_the_wrong_one_is_said_and_one_that_is_wrong_refused(tmp_path, capsys):
    load_questions(write(tmp_path, GOOD, '{"question": "400 x 3?", "answer": "#### 1.200"}'))
    assert "of 2 answers, 1 may be thousands, such as '1.200'" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"line 2: .*'3,5', but it is 7/2 with a decimal comma: --decimal-mark comma"):
        load_questions(write(tmp_path, GOOD, '{"question": "7 / 2?", "answer": "#### 3,5"}'))


def test_a_number_of_the_data_is_that_number_whatever_the_mark_of_the_texts(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist([{"question": "3 / 2?", "answer": Decimal("1.500")}])
    parquet.write_table(table, tmp_path / "decimal.parquet")
    use_decimal_mark("comma")
    try:
        (row,) = load_questions(write(tmp_path, '{"question": "7 / 2?", "answer": 3.5}'))
        assert gold_answer(row["answer"]) == 3.5
        (row,) = load_questions(str(tmp_path / "decimal.parquet"))
        assert gold_answer(row["answer"]) == 1.5
        use_decimal_mark("point")
        table = pa.table({"question": ["1 / 10?"], "answer": pa.array([0.1], pa.float32())})
        parquet.write_table(table, tmp_path / "short.parquet")
        (row,) = load_questions(str(tmp_path / "short.parquet"))
        assert row["gold"] == "0.1"
        inside = pa.array(
            [{"parts": [{"total": 2.7}]}], pa.struct({"parts": pa.list_(pa.struct({"total": pa.float32()}))})
        )
        assert as_meant([{"s": inside[0].as_py()}], pa.schema({"s": inside.type})) == [
            {"s": {"parts": [{"total": 2.7}]}}
        ]
    finally:
        use_decimal_mark("point")
