"""Kinds of answers: what is read of a reply, in form and out of it, and of the data; what is right then."""

import json
from textwrap import dedent

import pytest

from kit.cli.errors import UserError
from kit.grading import flexible_answer, gold_answer, strict_answer, verdicts
from kit.task.questions import load_questions
from kit.task.task import take_task
from tests.task.conftest import is_right, said


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("9 + 4", True), ("(4+9)", True), ("9 + 4 = 13", True), ("9 - -4", False), ("13", False), ("9 + 4 + 0", False),
        ("9 + 9 - 5", False), ("4 ** 2 - 3", False), ("9.0 + 4", False), ("True * 9 + 4", False), ("9 + 4)", False),
        ("__import__('os').getpid()", False), ("9 + 4 / 0", False), ("(" * 90 + "9 + 4" + ")" * 90, True),
        ("9" * 5000, False), ("9 + 4 # 9 + 4", False), ("\x00", False), ("1if 2 else 3", False), ("9+4", True),
    ],
)  # fmt: skip
def test_a_calculation_uses_each_number_once_and_nothing_else(answer, right):
    take_task("countdown")
    assert is_right(answer, '{"numbers": [9, 4], "target": 13}') is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("B", True), ("b", True), ("(B)", True), ("**B**", True), ("B) Rome", True), ("B. Rome.", True), ("A", False),
        ("A or B", False), ("A, B, C, D", False), ("A) Paris B) Rome", False), ("Bonn", False), ("", False),
        ("B. It is not C.", False), ("not A", False), ("A) Paris or b) Rome", False), ("B) wrong, A is right", False),
        ("B) Vitamin C", True), ("[B] Rome", True), ("**B**) Rome", True), ("B) A dog", True), ("B) Rome, C", False),
    ],
)  # fmt: skip
def test_a_choice_is_one_choice(answer, right):
    take_task("choice")
    assert is_right(answer, "B") is right


@pytest.mark.parametrize(
    ("choices", "answer", "read"),
    [
        ("[in, out]", "ın) x", None), ("[yes, no]", "Yes. Or No.", None), ("[yes, no]", "yes. NO", None),
        ("[yes, no]", "Yes!", "yes"),
        ("[1, 2, 3, 4]", "2) 4 apples", "2"), ("[a, b, c, d]", "b) a dog", "b"), ("['(A)', '(B)']", "A", "(A)"),
        ("[a cat, a small dog]", "A cat: or A small dog", None), ("[not sure, sure]", "Not  sure.", "not sure"),
        ("[true, false]", "False", "false"), ("[on, off]", "ON", "on"),
    ],
)  # fmt: skip
def test_choices_of_every_kind(own, choices, answer, read):
    own(f"answer: {choices}\nexample: {{question: q, reasoning: so, answer: {choices[1:-1].split(',')[0]}}}")
    assert strict_answer(said(answer)) == read


def test_a_choice_that_is_denied_is_none():
    take_task("choice")
    for reply, found in {"It is B, not A.": "B", "The answer is not A.": None, "No es (B)": None, "It isn't C": None,
                         "It is not a dog, so D": "D"}.items():  # fmt: skip
        assert flexible_answer(reply) == found


def test_what_a_reply_out_of_form_says():
    take_task("choice")
    assert flexible_answer("A is a town, B is a river.\nThe answer is B.") == "B"
    assert flexible_answer("A dog is no cat. A cat is no dog.") is None
    assert flexible_answer("<answer>C</answer> and so on, or D") == flexible_answer(r"It is \boxed{C}, not D.") == "C"
    take_task("countdown")
    assert verdicts("9 + 4 = 13. The answer is **9 + 4**.", '{"numbers": [9, 4], "target": 13}')["flexible"]
    assert verdicts("<reasoning>so</reasoning>\n<answer>9 + 4", '{"numbers": [9, 4], "target": 13}')["flexible"]
    take_task("choice")
    assert flexible_answer("It is a dog.") is None
    assert verdicts("B", "B") == {"strict": False, "flexible": True, "in_format": False}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ('{"b": [1.0], "a": true}', True), ('```json\n{"a": true, "b": [1]}\n```', True), ('{"a": 1, "b": [1]}', False),
        ('{"a": true, "b": [1], "a": false}', False), ('{"a": true, "b": [1], "c": 0}', False), ("{}", False),
        ("[" * 5000, False),
        ('{"a": true, "b": [1.000000000000000000001]}', False), ('{"a": true, "b": [1e999999]}', False),
        ('"\\ud800"', False), ("```" + "\n" * 5000 + "x", False),
        ('{"a": true, "b": [1]} {"a": true, "b": [2]}', False),
        ("NaN", False),
    ],
)  # fmt: skip
def test_json_is_its_value(own, answer, right):
    own("answer: json\nexample: {question: q, reasoning: so, answer: {a: 1}}")
    assert is_right(answer, '{"a": true, "b": [1]}') is right


@pytest.mark.parametrize(
    "reply",
    [
        "<reasoning>So.</reasoning>\n<answer>Rome", "<answer>Rome</answer>\n<answer>Rome</answer>",
        "<reasoning>So</reasoning>\nRome</answer>", "<Answer>Rome</Answer>", "It is so.\nRome",
    ],
)  # fmt: skip
def test_a_text_out_of_form_is_read_up_to_its_tags(own, reply):
    own("answer: text\nexample: {question: q, reasoning: so it is, answer: Lima}")
    assert flexible_answer(reply) == gold_answer("Rome")


def test_a_reader_that_cannot_read_a_reply_says_that_it_is_no_answer(own):
    """As Fraction, Decimal and json.loads say it."""
    reader = """
        from decimal import Decimal
        from fractions import Fraction
        import json
        READERS = {"F": Fraction, "D": Decimal, "J": json.loads}
        SYSTEM_PROMPT = ""
        EXAMPLE = {"question": "q", "reasoning": "so it is", "answer": "F1/2"}

        def read_answer(text):
            return READERS[text[0]](text[1:]) if text[0] in READERS else None

        def is_right(answer, gold):
            return answer == read_answer(gold)
        """
    own(dedent(reader).replace('SYSTEM_PROMPT = ""\n', ""), "mine.py")
    for block in ("F1/0", "Dx", "J" + "[" * 100_000, "Jx"):
        assert strict_answer(said(block)) is None
    assert is_right("F2/4", "F1/2")


@pytest.mark.parametrize(
    ("choices", "rows", "golds"),
    [
        ("[true, false]", (True, "False"), ["true", "false"]), ("[1, 2]", (2.0, 1), ["2", "1"]),
        ("[0.5, 1.0]", (1.0, 0.5), ["1.0", "0.5"]),
    ],
)  # fmt: skip
def test_data_say_true_and_whole_numbers_as_the_choices_are_written(own, tmp_path, choices, rows, golds):
    own(f"answer: {choices}\nexample: {{question: q, reasoning: so it is, answer: {golds[0]}}}")
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(json.dumps({"question": f"Is it {row}?", "answer": row}) for row in rows))
    assert [row["gold"] for row in load_questions(str(file))] == golds


def test_text_is_its_letters(own):
    own("answer: text\nexample: {question: q, reasoning: so, answer: Lima}")
    assert all(is_right(answer, "São  Paulo") for answer in ("são paulo", '"São Paulo."', "**São Paulo**"))
    assert not any(is_right(answer, "São Paulo") for answer in ("Sao Paulo", "São Paulo or Rio", "S ão Paulo", "..."))


def test_what_is_right_of_a_text_is_cut_out_of_a_solution_and_reaches_a_reward_as_it_is_written(own, tmp_path):
    own("answer: text\nexample: {question: q, reasoning: so, answer: Lima}")
    golds = [
        "New  York",
        "<think>so</think><answer> New York </answer>",
        r"We reason: \boxed{New York}",
        "so\n#### New York",
        r"so\n#### \boxed{New York}",
        r"so it is \(\boxed{New York}\).",
        r"\[ \boxed{\text{New York}} \]",
    ]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n}?", "answer": gold}) + "\n" for n, gold in enumerate(golds)))
    assert all(is_right("new york", gold) for gold in golds)
    assert [row["gold"] for row in load_questions(str(file))] == ["New  York", *["New York"] * 6]


def test_a_reader_that_does_not_say_what_it_takes_is_taken(own):
    """``int`` does not, as some that are written in C."""
    example = {"question": "3 + 4?", "reasoning": "3 + 4 = 7", "answer": "7", "gold": 7}
    own(
        f"EXAMPLE = {example}\nread_answer = int\ndef is_right(answer, gold):\n    return answer == int(gold)\n", "m.py"
    )
    assert is_right(" 7", "7")


def test_an_answer_that_no_reply_can_give_is_refused(own, tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text('{"question": "q", "answer": "1e100"}')
    with pytest.raises(UserError, match="line 1: the answer '1e100' is none that a reply can give"):
        load_questions(str(file))
    own("answer: text\nexample: {question: q, reasoning: so, answer: Lima}")
    file.write_text('{"question": "q", "answer": "the tag <answer>"}')
    with pytest.raises(UserError, match="is none that a reply can give"):
        load_questions(str(file))


def test_answers_are_read_as_before_where_they_say_more(own, tmp_path):
    file = tmp_path / "data.jsonl"

    def golds(*answers):
        file.write_text(
            "".join(json.dumps({"question": f"{n}", "answer": text}) + "\n" for n, text in enumerate(answers))
        )
        return [row["gold"] for row in load_questions(str(file))]

    own("answer: json\nexample: {question: q, reasoning: so, answer: {a: 1}}")
    assert golds('```json\n{"a": 1}\n```') == ['{"a": 1}']
    take_task("choice")
    assert golds(r"A) The \boxed{x}", r"B. $\boxed{12}$", r"\boxed{C}") == ["A", "B", "C"]
    own("answer: text\nexample: {question: q, reasoning: so, answer: Lima}")
    assert golds(r"\fbox{x} + 1", r"\boxed{\boxed{x}}") == [r"\fbox{x} + 1", "x"]


def test_what_parquet_adds_to_an_answer_is_said(own, tmp_path, capsys):
    from pyarrow import Table, parquet

    own("answer: json\nexample: {question: q, reasoning: so, answer: {a: 1}}")
    rows = [{"question": "a", "answer": {"name": "Ana", "age": 3}}, {"question": "b", "answer": {"name": "Bo"}}]
    parquet.write_table(Table.from_pylist(rows), tmp_path / "data.parquet")
    load_questions(str(tmp_path / "data.parquet"))
    assert "of 2 answers, 1 hold null" in capsys.readouterr().out


def test_yes_and_no_are_words(own):
    own("answer: [yes, no]\nexample: {question: q, reasoning: so, answer: 'no'}")
    assert is_right("Yes", "yes")
    assert not is_right("no", "yes")
