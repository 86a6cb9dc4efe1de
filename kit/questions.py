"""QUESTION: a Hub data set or a JSONL file becomes rows of {question, answer}, every gold answer checked on the way."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kit.errors import UserError, first_line
from kit.grading import doubtful_mark, gold_answer
from kit.hub import check_dataset
from kit.number_reading import as_text

Row = dict[str, str]

HUB_CONFIGS = {"openai/gsm8k": "main"}  # data sets that cannot be loaded without naming a configuration
PROBLEMS_SHOWN = 5


def load_questions(
    dataset: str,
    split: str = "train",
    question_column: str = "question",
    answer_column: str = "answer",
    limit: int | None = None,
) -> list[Row]:
    """The rows of a JSONL file or a Hub data set, in their order, as ``{"question": ..., "answer": ...}``.

    Raises:
        UserError: the file is missing or does not parse, a column is missing, or a gold answer cannot be read. Each
            problem names its line; at most five are listed.
    """
    if Path(dataset).suffix in (".jsonl", ".json") or Path(dataset).is_file():
        raw_rows, first_number = _read_jsonl(Path(dataset)), 1
    else:
        raw_rows, first_number = _read_hub(dataset, split), 0
    if not raw_rows:
        raise UserError(f"{dataset} holds no questions: give a data set with at least one row")
    rows, problems = [], []
    for number, raw in enumerate(raw_rows[:limit], first_number):
        try:
            rows.append(_checked_row(raw, question_column, answer_column))
        except ValueError as error:
            problems.append(f"{dataset}, {'line' if first_number else 'row'} {number}: {error}")
    if problems:
        more = len(problems) - PROBLEMS_SHOWN
        raise UserError(*problems[:PROBLEMS_SHOWN], *([f"{dataset}: and {more} more such rows"] if more > 0 else []))
    if doubt := doubtful_mark([row["answer"] for row in rows]):
        print(f"{dataset}: {doubt}")
    return rows


def fingerprint(rows: list[Row]) -> str:
    """A short hash of questions and answers: the same rows, wherever they were loaded from, give the same one."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]


def _checked_row(raw: object, question_column: str, answer_column: str) -> Row:
    if not isinstance(raw, dict):
        raise ValueError("is no JSON object; each line must hold one, with a question and an answer")
    for column, option in ((question_column, "--question-column"), (answer_column, "--answer-column")):
        if raw.get(column) in (None, ""):
            raise ValueError(f"has no {column!r}; add it, or name the right column with {option}")
    row = {"question": str(raw[question_column]), "answer": as_text(raw[answer_column])}
    gold_answer(row["answer"])
    return row


def _read_jsonl(path: Path) -> list[object]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(
            f"--dataset {path} does not exist: give a JSONL file, or a Hub data set such as openai/gsm8k"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--dataset {path} cannot be read as UTF-8 text ({error}): give a JSONL file") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number} is not JSON ({error}): mend or remove that line") from None
    return rows


def _read_hub(dataset: str, split: str) -> list[object]:
    check_dataset(dataset)
    from datasets import load_dataset

    try:
        return load_dataset(dataset, HUB_CONFIGS.get(dataset), split=split).to_list()
    except Exception as error:  # the Hub client raises many kinds; all mean that the data did not come
        raise UserError(
            f"--dataset {dataset} could not be loaded ({first_line(error)}): check the id and the network, or give a "
            "JSONL file"
        ) from None
