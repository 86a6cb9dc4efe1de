"""The grader as a table of odd replies, each with the verdict that a person would give."""

from fractions import Fraction
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import grading
from kit.grading import flexible_answer, gold_answer, is_correct, read_number, strict_answer
from kit.prompts import format_reply

HALF = Fraction(1, 2)
NUMBERS = {
    # as people write a number
    "18": 18, "18.": 18, "18.00": 18, "+4": 4, "-4": -4, "\N{MINUS SIGN}4": -4, "0": 0, "-0": 0, "007": 7,
    "1,200": 1200, "1,234,567.": 1_234_567, "1,200.50": Fraction(2401, 2), "1,200,": 1200, ".5": HALF, "-.5": -HALF,
    "1/2": HALF, "-1/2": -HALF, "4/2": 2, "1,000/2": 500, "1/1,000": Fraction(1, 1000), "0/5": 0,
    # with something beside it
    "$18": 18, "-$4": -4, "$-4": -4, "\\$1,200": 1200, "US$18": 18, "18€": 18, "€ 18": 18, "50%": 50, "18 %": 18,
    "18 apples": 18, "18kg": 18, "18 m²": 18, "18!": 18, "(18)": 18, "x = -4": -4, "about 18": 18, "18-year-old": 18,
    "$18/hour": 18, "Rs.18": 18,
    "s.5": 5, " s.5": 5, "so...18": 18, "18...": 18, "共18个": 18, "answer:18": 18, "#### 18": 18,
    "\\boxed{18}": 18, "$\\boxed{18}$": 18, "\\text{18}": 18, "**18**": 18, "__18__": 18, "`18`": 18, "18\n": 18,
    "9" * 100: int("9" * 100),
    # more than one, or none
    "12 or 13": None, "5 + 3": None, "5+3": None, "3 4": None, "20-2": None, "18:30": None, "18 = 18": None,
    "1, 2": None, "1 000": None, "10^2": None, "3 1/2": None, "": None, " ": None, "eighteen": None, ".": None,
    # not written as a number is written
    "1,20": None, "1,2": None, "0,123": None, "12,34,567": None, "1,000,00": None, "1.2.3": None, "1/2/3": None,
    "1.5/2": None, "1/0": None, "1/00": None, "1e5": None, "1E+5": None, "1e-5": None, "1_000": None, "0x12": None,
    "9" * 101: None,
    # part of something else
    "x2": None, "H2O": None, "x_1": None, "√16": None, "±4": None, "--4": None, "+-4": None, "- 4": None,
    "x-4": None, "is x-4": None,
    # digits outside ASCII
    "²": None, "18²": None, "½": None, "1½": None, "\N{ARABIC-INDIC DIGIT THREE}": None,
    "1\N{FULLWIDTH DIGIT TWO}": None, "18 x½": None, "18 \N{ROMAN NUMERAL EIGHT}": None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_a_number_is_read_as_people_read_it(text, value):
    assert read_number(text) == value


STRICT = {
    "<reasoning>so</reasoning><answer>18</answer>": 18,
    "Sure! <reasoning>so</reasoning> then <answer>18</answer> Done.": 18,
    "<reasoning>a\nb</reasoning>\n<answer>\n$1,200\n</answer>": 1200,
    "<reasoning>5 < 6</reasoning><answer>18</answer>": 18,
    "18": None,
    "<answer>18</answer>": None,
    "<reasoning></reasoning><answer>18</answer>": None,
    "<reasoning> \n </reasoning><answer>18</answer>": None,
    "<reasoning>so</reasoning><answer>18": None,
    "<reasoning>so</reasoning><answer></answer>": None,
    "<reasoning>so</reasoning><answer>18</answer><answer>18</answer>": None,
    "<answer>18</answer><reasoning>so</reasoning>": None,
    "<reasoning>so<answer>18</answer></reasoning>": None,
    "<Reasoning>so</Reasoning><answer>18</answer>": None,
    "<reasoning>so</reasoning>< answer>18</ answer>": None,
    "<reas<reasoning>oning></reasoning><answer>18</answer>": None,
}


@pytest.mark.parametrize(("reply", "value"), STRICT.items())
def test_the_strict_answer_stands_in_the_answer_block_or_there_is_none(reply, value):
    assert strict_answer(reply) == value


FLEXIBLE = {
    "The answer is 18.": 18, "18 ... ok": 18, "$18.00": 18, "20-2": 2, "12 or 13": 13, "18 (see step 2)": 2,
    "- 4": 4, "it is -4": -4, "no number": None, "12, then 1,20": 12, "7, then 1e5": 7, "7, then 1/0": 7,
    "<reasoning>so</reasoning><answer>18</answer> in 2 steps": 18,
    "<reasoning>so</reasoning><answer>12 or 13</answer>": 13,
    "5": 5, "5" + " " * 20_000: 5,
}  # fmt: skip


@pytest.mark.parametrize(("reply", "value"), FLEXIBLE.items())
def test_the_flexible_answer_is_the_strict_one_else_the_last_number(reply, value):
    assert flexible_answer(reply) == value


def test_gold_answers_in_both_forms():
    assert gold_answer("9 + 9 = <<9+9=18>>18\n#### 18") == gold_answer("18") == gold_answer("$18.00") == 18
    for unreadable in ("", "#### ", "#### twelve", "1 or 2"):
        with pytest.raises(ValueError, match="no single number"):
            gold_answer(unreadable)


def test_equality_is_exact():
    assert is_correct(read_number("0.1"), Fraction(1, 10))
    assert not is_correct(read_number("0.3333333333333333"), Fraction(1, 3))
    assert not is_correct(None, Fraction(0))


@given(st.integers(-(10**12), 10**12))
def test_every_way_to_write_a_number_gives_it(value):
    for written in (f"{value}", f"{value:,}", f"{value}.00", f"**{value}**", f"{value:,} apples."):
        assert read_number(written) == value
        assert strict_answer(format_reply("so", written)) == value
        assert flexible_answer(f"1 2 3 so the answer is {written}") == value


@given(st.text())
def test_no_text_is_an_error(text):
    read_number(text)
    flexible_answer(text)


@settings(max_examples=1000)
@given(st.text(alphabet="0012.,/-+$ e_x²\n"), st.integers(1, 12))
def test_the_last_number_is_found_in_windows_of_any_size(text, window):
    """The search goes backwards in windows; their borders must not show."""
    whole = flexible_answer(text)
    with mock.patch.object(grading, "_WINDOW", window):
        assert flexible_answer(text) == whole
