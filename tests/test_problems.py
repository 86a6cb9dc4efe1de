"""The demo's questions: GSM8K's form, right answers, nothing shared between training and held-out."""

import json
import re
from itertools import islice

from demo.problems import problems, write_problems
from kit.grading import gold_answer
from kit.task.questions import load_questions

COUNT = 3_000


def some(heldout, seed=1):
    return list(islice(problems(seed, heldout), COUNT))


def test_rows_are_gsm8k_rows_with_right_answers(tmp_path):
    write_problems(tmp_path, seed=3)
    for row in load_questions(str(tmp_path / "heldout.jsonl")):
        steps, _, gold = row["answer"].partition("\n#### ")
        left, right = steps.split(" = ")
        assert eval(left) == int(right) == int(gold)  # the text is our own: digits and one operator
        assert re.findall(r"\d+", row["question"]) == re.findall(r"\d+", left)
        assert gold_answer(row["answer"]) == int(gold)


def test_train_and_heldout_share_neither_question_nor_sum():
    train, heldout = some(heldout=False), some(heldout=True, seed=2)
    assert not {p.question for p in train} & {p.question for p in heldout}
    assert not {p.key for p in train} & {p.key for p in heldout}


def test_no_question_twice():
    assert len({p.question for p in some(heldout=False)}) == COUNT


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_problems(tmp_path / name, seed)
    first, again, other = ((tmp_path / name / "train.jsonl").read_text() for name in "abc")
    assert first == again != other
    assert json.loads(first.splitlines()[0]).keys() == {"question", "answer"}
