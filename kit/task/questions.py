"""QUESTION: a Hub data set or a file becomes rows of question and answer, every gold answer checked on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from kit.answers.choice import Choice
from kit.answers.own import Own
from kit.cli.errors import UserError, first_line
from kit.grading import answer_kind, gold_answer, is_correct, strict_answer
from kit.prompts import format_reply
from kit.storage.hub import check_dataset, is_data_file
from kit.task.data_files import PlacedRow, as_meant, read_rows
from kit.task.row_texts import answer_text, as_chat, last_question, text_of, value_at

# "question" and "answer", the texts of the data set; "gold", the checked value as a text; "columns", the row as it came
Row = dict[str, Any]

# Columns in which Alpaca's data, multiple choice and questions about a text have what belongs to the question.
_ASKED_TOO = ("input", "choices", "options", "endings", "context", "passage")
HUB_CONFIGS = {"openai/gsm8k": "main"}  # data sets that cannot be loaded without naming a configuration
PROBLEMS_SHOWN = 5


def load_questions(
    dataset: str,
    split: str = "train",
    question_column: str = "question",
    answer_column: str = "answer",
    limit: int | None = None,
    *,
    config: str = "",
    skip_bad_rows: bool = False,
    split_of_a_file: str = "train",
) -> list[Row]:
    """The rows of a file or a Hub data set, in their order.

    Args:
        dataset: a file (JSON Lines, a JSON array, CSV, TSV, Parquet) or a Hub id.
        split: of a Hub data set; of either, a part of it, as in ``train[:500]``.
        question_column: the name of a column, or of a place in it (``a.b``); a chat there gives its last question.
        answer_column: likewise, of what the task's kind of answer reads.
        limit: no more than the first so many rows.
        config: of a Hub data set.
        skip_bad_rows: leave out, with a sentence, what would otherwise be refused.
        split_of_a_file: the name of the only split that a file has.

    Raises:
        UserError: the data cannot be read, a column is missing, or a gold answer cannot be read. Each problem names its
            line; at most five are listed.
    """
    placed = _read(dataset, split, config, split_of_a_file)
    if not placed:
        raise UserError(f"{dataset} holds no questions: give a data set with at least one row")
    rows, problems = [], []
    for place, raw in placed[:limit]:
        try:
            rows.append(_checked_row(raw, question_column, answer_column))
        except ValueError as error:
            problems.append(f"{dataset}, {place}: {error}")
    if problems and not (skip_bad_rows and rows):
        more = len(problems) - PROBLEMS_SHOWN
        if more > 0:
            problems[PROBLEMS_SHOWN:] = [f"{dataset}: and {more} more such rows"]
        if not rows and all("no single number" in problem for problem in problems[:PROBLEMS_SHOWN]):
            problems.append("where the answers are no numbers, --task says what they are: docs/your-task.md")
        raise UserError(*problems)
    if problems:
        print(f"{len(problems)} of {len(problems) + len(rows)} rows left out, the first: {problems[0]}")
    if more_than_asked := sum(_has_further_messages(row["columns"], question_column) for row in rows):
        print(f"{more_than_asked} rows hold more messages than a question: only the last one of the user is asked")
    for doubt in (answer_kind().doubt([row["answer"] for row in rows]), _with_two_answers(rows), _not_asked(rows)):
        if doubt:
            print(f"{dataset}: {doubt}")
    return rows


def fingerprint(rows: list[Row]) -> str:
    """A short hash of questions and answers: the same rows, wherever they were loaded from, give the same one."""
    texts = [{"question": row["question"], "answer": row["answer"]} for row in rows]
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]


def _read(dataset: str, split: str, config: str, split_of_a_file: str) -> list[PlacedRow]:
    if not is_data_file(dataset):
        return _read_hub(dataset, split, config)
    problems = []
    if config:
        problems.append(f"--dataset-config {config} is for Hub data sets: leave it out for the file {dataset}")
    name = split.partition("[")[0]
    if name != split_of_a_file:
        problems.append(
            f"--split {split} is for Hub data sets: the file {dataset} has no splits; leave it out, or write "
            f"{split_of_a_file}[:100] for a part of the file"
        )
    if problems:
        raise UserError(*problems)
    rows = read_rows(Path(dataset))
    return rows if name == split else _part_of(rows, split)


def _part_of(rows: list[PlacedRow], split: str) -> list[PlacedRow]:
    """The rows that ``split``, such as ``train[:10%]``, means of a file, as ``datasets`` reads it."""
    from datasets import ReadInstruction

    try:
        parts = ReadInstruction.from_spec(split).to_absolute({split.partition("[")[0]: len(rows)})
    except (ValueError, AssertionError) as error:
        raise UserError(f"--split {split} names no part ({first_line(error)}): write it as train[:100]") from None
    return [row for part in parts for row in rows[part.from_ : part.to]]


def _checked_row(raw: object, question_column: str, answer_column: str) -> Row:
    if isinstance(raw, ValueError):
        raise raw
    if not isinstance(raw, dict):
        raise ValueError("is no JSON object; each line must hold one, with a question and an answer")
    question = _wanted(raw, question_column, "--question-column")
    asked = last_question(as_chat(question)) or text_of(question, question_column, "--question-column")
    if not asked.strip():
        raise ValueError(f"has nothing in {question_column!r}: write a question, or remove the row")
    kind, value = answer_kind(), _wanted(raw, answer_column, "--answer-column")
    if isinstance(kind, Choice):
        value = _as_choice(kind, value)
    answer = answer_text(value, answer_column, "--answer-column", kind.takes_values)
    try:
        (asked + answer).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise ValueError(
            f"holds half a character ({half}), as a text cut in an emoji does: mend or remove it"
        ) from None
    gold = kind.gold_text(answer)
    if not isinstance(kind, Own) and not _can_be_given(gold):
        raise ValueError(
            f"the answer {answer.strip()[:80]!r} is none that a reply can give: it is too long, or holds a tag"
        )
    return {"question": asked, "answer": answer, "gold": gold, "columns": raw}


def _as_choice(kind: Choice, value: Any) -> Any:
    """As the task file writes it, where it does: true for JSON's, 2 for the 2.0 that a column with gaps has."""
    written = value
    if isinstance(value, bool):
        written = str(value).lower()
    elif isinstance(value, float) and value.is_integer() and kind.read(str(value)) is None:
        written = str(int(value))
    return written if isinstance(written, str) and kind.read(written) else value


def _can_be_given(gold: str) -> bool:
    """Is a reply right that says just this?"""
    try:
        return is_correct(strict_answer(format_reply("so it is", gold)), gold_answer(gold))
    except ValueError:
        return False


def _wanted(raw: dict[str, Any], column: str, option: str) -> Any:
    value = value_at(raw, column)
    if value in (None, "") or value != value:  # NaN, which pandas writes for a gap
        has = "" if column in raw else f"it has {', '.join(map(str, raw)) or 'no columns'}: "
        raise ValueError(f"has no {column!r}; {has}add it, or name the right column with {option}")
    return value


def _has_further_messages(raw: dict[str, Any], question_column: str) -> bool:
    return len(as_chat(value_at(raw, question_column)) or ()) > 1


def _with_two_answers(rows: list[Row]) -> str | None:
    """Is a question there twice, with different right answers? In training each then pays what the other punishes."""
    golds: dict[str, dict[Any, str]] = {}
    for row in rows:
        golds.setdefault(row["question"], {}).setdefault(gold_answer(row["gold"]), row["gold"])
    several = [question for question, of_it in golds.items() if len(of_it) > 1]
    if not several:
        return None
    shown = " and ".join(list(golds[several[0]].values())[:2])
    return f"{len(several)} questions stand there with different answers, such as {several[0][:80]!r} ({shown})"


def _not_asked(rows: list[Row]) -> str | None:
    """Data in the form of others hold a part of what is to be asked in a column of its own."""
    for name in _ASKED_TOO:
        if left_out := sum(_is_beside(name, row) for row in rows):
            return f"{left_out} rows have {name} beside the question, which is not asked: put both into one column"
    return None


def _is_beside(name: str, row: Row) -> bool:
    """Does a column hold something that the question does not say? Of a list or a dict its first text decides."""
    value = row["columns"].get(name)
    if name == "input" and "instruction" not in row["columns"]:
        return False
    while isinstance(value, (list, dict)) and value:
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and bool(value.strip()) and value.strip() not in row["question"]


def _read_hub(dataset: str, split: str, config: str) -> list[PlacedRow]:
    check_dataset(dataset)
    from datasets import load_dataset

    try:
        loaded = load_dataset(dataset, config or HUB_CONFIGS.get(dataset), split=split)
        rows = as_meant(loaded.to_list(), loaded.features.arrow_schema)
    except Exception as error:  # the Hub client raises many kinds; all mean that the data did not come
        said = str(error).split("\nExample")[0] if "onfig" in str(error) else first_line(error)
        raise UserError(
            f"--dataset {dataset} could not be loaded ({' '.join(said.split())[:400]}): check the id, "
            "--dataset-config, --split and the network, or give a file"
        ) from None
    return [(f"row {number}", row) for number, row in enumerate(rows)]
