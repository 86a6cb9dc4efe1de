"""Data as people have them: the same rows from every format, places that can be found, nothing left out in silence."""

import bz2
import csv
import gzip
import json

import pytest

from kit.cli.errors import UserError
from kit.grading import gold_answer
from kit.numbers.reading import use_decimal_mark
from kit.task.questions import fingerprint, load_questions

ROWS = [{"question": f"Tom has {n} pears and buys {n}.\nHow many now?", "answer": str(2 * n), "level": n % 3}
        for n in range(8)]  # fmt: skip
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def write_csv(path, delimiter=","):
    with path.open("w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.DictWriter(handle, ROWS[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path):
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pylist(ROWS), path)


FORMATS = {
    "a.jsonl": lambda path: path.write_text(LINES),
    "bom.jsonl": lambda path: path.write_text(LINES, encoding="utf-8-sig"),
    "crlf.jsonl": lambda path: path.write_bytes(LINES.replace("\n", "\r\n").encode()),
    "utf16.jsonl": lambda path: path.write_text(LINES, encoding="utf-16"),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "a.csv": write_csv,
    "semicolon.csv": lambda path: write_csv(path, ";"),
    "a.tsv": lambda path: write_csv(path, "\t"),
    "a.parquet": write_parquet,
}


@pytest.mark.parametrize(("name", "write"), FORMATS.items(), ids=FORMATS)
def test_every_format_gives_the_same_rows(tmp_path, name, write):
    write(tmp_path / name)
    rows = load_questions(str(tmp_path / name))
    assert [row["columns"] for row in rows] == [row | {"answer": rows[i]["columns"]["answer"]}
                                                for i, row in enumerate(ROWS)]  # fmt: skip
    assert [row["answer"] for row in rows] == [row["answer"] for row in ROWS]
    (tmp_path / "again.jsonl").write_text(LINES)
    assert fingerprint(rows) == fingerprint(load_questions(str(tmp_path / "again.jsonl")))


def test_lines_end_at_line_breaks_alone(tmp_path):
    text = "First.\N{LINE SEPARATOR}Second.\N{NEXT LINE}How many?"
    (tmp_path / "a.jsonl").write_text(json.dumps({"question": text, "answer": "1"}, ensure_ascii=False) + "\n{oops\n")
    with pytest.raises(UserError) as refusal:
        load_questions(str(tmp_path / "a.jsonl"))
    (problem,) = refusal.value.problems
    assert "line 2: is not JSON" in problem


REFUSED = {
    "fields.csv": ("question,answer\n9 + 9?,18\n1,000 pears?,7\n", "line 3: has 3 fields where the header has 2"),
    "value.csv": ('question,answer\n"9 +\n9?",18\n8 + 8?,\n', "line 4: has no 'answer'"),
    "quote.csv": ('question,answer\n"9 + 9?,18\n', "no CSV"),
    "twice.csv": ("question,answer,answer\n9 + 9?,18,18\n", "names a column twice"),
    "entry.json": ('[{"question": "9 + 9?", "answer": "18"}, {"question": "9 + 9?"}]', "row 1: has no 'answer'"),
    "open.json": ('[{"question": "9 + 9?",\n "answer": "18"},\n', "is not JSON"),
    "pandas.json": ('{"question": {"0": "9 + 9?"}, "answer": {"0": "18"}}', "orient='records'"),
    "columns.json": ('{"question": ["9 + 9?", "8 + 8?"], "answer": [18, 16]}', "is one JSON object, not rows"),
    "data.json": ('{"data": [{"question": "9 + 9?", "answer": "18"}]}', "is one JSON object, not rows"),
    "object.json": ('{"data":\n [{"question": "9 + 9?", "answer": "18"}]}', "is one JSON object, not rows"),
    "latin.jsonl": (b'{"question": "\xbf9 + 9?", "answer": "18"}', "save it as UTF-8"),
    "book.xlsx": (b"PK\x03\x04rest", "save it as CSV"),
    "cut.jsonl.gz": (gzip.compress(LINES.encode())[:-9], "cannot be read"),
    "damaged.jsonl.gz": (gzip.compress(LINES.encode())[:12] + bytes(40), "cannot be read"),
    "cut.jsonl.bz2": (bz2.compress(LINES.encode())[:-9], "cannot be read"),
    "cut.parquet": (b"PAR1rest", "damaged Parquet"),
    "long.jsonl": ('{"question": "9 + 9?", "answer": %s}\n' % ("9" * 5000), "line 1: is not JSON"),
    "deep.json": ("[" * 100_000, "is not JSON"),
}


@pytest.mark.parametrize(("name", "content", "words"), [(name, *case) for name, case in REFUSED.items()], ids=REFUSED)
def test_what_cannot_be_read_says_where_and_what_to_do(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as refusal:
        load_questions(str(tmp_path / name))
    assert name in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    ["sep=;\nquestion;answer\na;1\nb;2\n", "question;answer;;\na;1;;\n;;;\nb;2;;\n", "question;answer\na;1\n;\nb;2\n"],
)
def test_what_excel_writes_beside_the_rows_is_no_row(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    rows = load_questions(str(tmp_path / "a.csv"))
    assert [row["columns"] for row in rows] == [{"question": "a", "answer": 1}, {"question": "b", "answer": 2}]


def test_csv_texts_stay_texts(tmp_path):
    (tmp_path / "a.csv").write_text('question,answer,id,level,share\n9 + 9?,"1,200",007,1,\nAgain?,18,008,2,0.5\n')
    first, second = load_questions(str(tmp_path / "a.csv"))
    assert first["gold"] == "1200"
    assert (first["columns"]["id"], first["columns"]["level"], first["columns"]["share"]) == ("007", 1, None)
    assert (second["columns"]["level"], second["columns"]["share"]) == (2, 0.5)


@pytest.mark.parametrize(
    ("answers", "golds"),
    [
        (["1.234", "2.500"], [1234, 2500]),
        (["1.234", "7.801"], [1234, 7801]),  # alone, numbers in Python's form too
        (["1.5", "2.25"], [1.5, 2.25]),
        (["1,5", "2,25"], [1.5, 2.25]),
    ],
)
def test_csv_with_a_decimal_comma(tmp_path, answers, golds):
    lines = ["question;answer", *(f"{place} + 1?;{answer}" for place, answer in enumerate(answers))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    use_decimal_mark("comma")
    try:
        assert [gold_answer(row["answer"]) for row in load_questions(str(tmp_path / "a.csv"))] == golds
    finally:
        use_decimal_mark("point")


def test_a_part_of_a_file(tmp_path):
    (tmp_path / "a.jsonl").write_text(LINES)
    first = load_questions(str(tmp_path / "a.jsonl"), "train[:2]") + load_questions(
        str(tmp_path / "a.jsonl"), "train[50%:]"
    )
    assert [row["answer"] for row in first] == ["0", "2", "8", "10", "12", "14"]
    for split, words in (("test", "has no splits"), ("train[1", "names no part")):
        with pytest.raises(UserError, match=words):
            load_questions(str(tmp_path / "a.jsonl"), split)
    with pytest.raises(UserError, match="--dataset-config es is for Hub data sets"):
        load_questions(str(tmp_path / "a.jsonl"), config="es")


def test_bad_rows_are_left_out_on_request_and_counted(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(LINES + '{oops\n{"question": "9 + 9?", "answer": "many"}\n')
    assert len(load_questions(str(tmp_path / "a.jsonl"), skip_bad_rows=True)) == 8
    assert "2 of 10 rows left out, the first: " in (said := capsys.readouterr().out)
    assert "line 9: is not JSON" in said
    (tmp_path / "b.jsonl").write_text("{oops\n")
    with pytest.raises(UserError, match="is not JSON"):
        load_questions(str(tmp_path / "b.jsonl"), skip_bad_rows=True)
