"""The grader as a table of odd replies, each with the verdict that a person would give."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.answers.number import Number
from kit.grading import flexible_answer, gold_answer, is_correct, strict_answer
from kit.numbers.reading import read_number, use_decimal_mark
from kit.prompts import format_reply

HALF = Fraction(1, 2)
MIXED = Fraction(7, 2)
NUMBERS = {
    # as people write a number
    "18": 18, "18.": 18, "18.00": 18, "+4": 4, "-4": -4, "\N{MINUS SIGN}4": -4, "0": 0, "-0": 0, "007": 7,
    "1,200": 1200, "1,234,567.": 1_234_567, "1,200.50": Fraction(2401, 2), "1,200,": 1200, ".5": HALF, "-.5": -HALF,
    "1/2": HALF, "-1/2": -HALF, "4/2": 2, "1,000/2": 500, "1/1,000": Fraction(1, 1000), "0/5": 0,
    # with something beside it
    "$18": 18, "-$4": -4, "$-4": -4, "\\$1,200": 1200, "US$18": 18, "18€": 18, "€ 18": 18, "50%": 50, "18 %": 18,
    "18 apples": 18, "18kg": 18, "18 m²": 18, "It is 18!": 18, "(18)": 18, "x = -4": -4, "about 18": 18,
    "18-year-old": 18,
    "$18/hour": 18, "Rs.18": 18,
    "s.5": 5, " s.5": 5, "so...18": 18, "18...": 18, "共18个": 18, "answer:18": 18, "#### 18": 18,
    "\\boxed{18}": 18, "$\\boxed{18}$": 18, "\\text{18}": 18, "**18**": 18, "__18__": 18, "`18`": 18, "18\n": 18,
    "9" * 100: int("9" * 100),
    # more than one, or none
    "12 or 13": None, "5 + 3": None, "5+3": None, "3 4": None, "20-2": None, "18:30": None, "18 = 18": None,
    "1, 2": None, "": None, " ": None, "eighteen": None, ".": None,
    # not written as a number is written
    "1,20": None, "1,2": None, "0,123": None, "1,000,00": None, "1.2.3": None, "1/2/3": None,
    "1.5/2": None, "1/0": None, "1/00": None, "1_000": None, "0x12": None,
    "9" * 101: None,
    # part of something else
    "x2": None, "H2O": None, "x_1": None, "√16": None, "±4": None, "--4": None, "+-4": None, "- 4": None,
    "x-4": None, "is x-4": None,
    # a dash as Word, phones and translators write a minus; where it may mean a range there is no number
    "–5": -5, "—5": -5, "\u20105": -5, "\u20115": -5, "\ufe635": -5, "\uff0d5": -5, "–1/2": -HALF, "–$20": -20,
    "$–20": -20,
    "-$ 20": -20, "x = –4": -4, "negative 5": -5, "-\u200b5": -5, "2–3": None, "-(5)": None, "|-5|": None, "- $5": None,
    # thousands and fractions as models and other countries write them
    "9{,}500": 9500, "10,\\!000": 10000, "70\\,000": 70000, "\\$9{,}500": 9500, "12 500 km": 12500, "1 000": 1000,
    "12\u202f000": 12000, "1'200": 1200, "12,34,567": 1_234_567, "₹1,00,000": 100_000, "9\u200b500": 9500,
    "\\frac{9}{2}": Fraction(9, 2), "\\dfrac{36}{2}": 18, "\\tfrac12": HALF, "-\\frac{1}{2}": -HALF, "36 / 2": 18,
    "3 1/2 cups": MIXED, "3\\frac{1}{2}": MIXED, "3 5/2": None, "\\frac{x}{2}": None, "\\frac{36}": None,
    "\\frac{1}{2}3": None,
    # powers of ten and scale words
    "1.8 \\times 10^3": 1800, "2 × 10^{6}": 2_000_000, "1.8 × 10³": 1800, "1e5": 100_000, "1e-1": Fraction(1, 10),
    "1e999": None, "5 million": 5_000_000, "2.5 Billion": 2_500_000_000, "5 hundred thousand": 500_000, "$5k": 5000,
    "5 millones": 5_000_000, "18万": 180_000, "5 millionaires": 5,
    # units with digits of their own
    "20 m^2": 20, "20 m2": 20, "18\\text{ cm}^2": 18, "18\\text{ cm}^{2}": 18, "5 m/s^2": 5, "90^\\circ": 90,
    "18 a day": 18, "9 a.m.": 9, "7 p. m.": 7, "7p.m.": 7, "5 a.": None, "5 p.": None,
    # a symbol or word that changes the value is no unit
    "\\sqrt{16}": None, "sqrt(16)": None, "\\sqrt[3]{27}": None, "9\\pi": None, "9π": None, "2/3π": None, "π/4": None,
    "5x": None, "5 x": None, "5xy": None, "3i": None, "ln 2": None, "log 8": None, "cos 60": None, "10!": None,
    "18 + x": None,
    # a line that ends above it
    "The total number of eggs is\n18": 18, "Total\n\\boxed{18}": 18, "```python\n18\n```": 18, "Hours\n1/2": HALF,
    "Cost in dollars\n1,200": 1200, "half of\n18": None, "Eggs sold -\n18": None, "-\n18": None, "negative\n18": None,
    # a sign with something between
    "-$\u00a018": -18, "-R$\u00a018.00": -18, "-€\u202f18": -18, "-$  18": -18, "-\\$\\,18": -18,
    "negative **18**": -18, "**Negative** 18": -18, "minus **18**": -18, "negative\u00a018": -18, "-[18]": None,
    "-“18”": None, "-<b>18</b>": None, "20 minus **2**": None,
    "Necesita al menos **18** manzanas": 18, "al menos 18": 18, "por lo menos 18": 18, "más o menos *18*": 18,
    "non-negative **18**": 18, "menos 18": -18, "menos **18**": -18,
    "18 and fifth graders": 18, "12 and seventh": 12, "3 and nine tenths": None, "3 y cinco octavos": None,
    "3-and-a-half": None, "3 and two thirds": None, "2 and three fourths": None, "18 and one fifth": None,
    "3 y tres cuartos": None,
    "60\\ \\frac{\\text{miles}}{\\text{hour}}": 60, "60\\frac{km}{h}": 60, "\\textcolor{red}{18}": 18,
    "\\color{red}{18}": 18, "\\Large 18": 18, "18\\textup{ cm}": 18, "1\\tag{5}{8}": None,
    "x + 18": None, "5(x + 1)": None, "5k": None, "$5k$": None, "3 dozen": None, "18 and a half": None,
    "18 squared": None, "1 half": None, "1 third of the cake": None, "2 tercios": None, "5 fifth graders": 5,
    "3 third-party apps": 3,
    "half of 18": None, "x \\le 5": None, "< 5": None, "18 < x": None, "5 \\pm 2": None, "9\\theta": None,
    "2^{10}": None,
    # signs and scales behind currencies and markup
    "-US$18": -18, "-R$ 18": -18, "-EUR 18": -18, "-Rs.18": -18, "-₺18": -18, "EUR18": 18, "A$5 and B": 5,
    "3 décimas": None, "7 centésimas": None, "2 decenas": None, "5 millares": None, "4 hundreds": None, "3 tens": None,
    "la mitad de los 18": None, "un tercio de 9": None, "el doble de 9": None, "raíz cuadrada de 16": None,
    "5 elevado al cuadrado": None,
    # what only looks like nothing
    "3\\4": None, "1\\8": None, "1\\tag{5}8": None, "&minus;5": -5, "&radic;16": None, "&lt;5": None, "5&times;3": None,
    "1&#8203;8": 18, "AT&T; 18": 18, "9\\hspace{2pt}500": 9500,
    "-\\phantom{0}5": -5, "El cuarto de 5 metros": 5, "Nació a mitad de 1985": 1985, "una doble de 18 m2": 18,
    "-**18**": None, "-`18`": None, "(−)18": None, "**18** apples": 18, "$5$ million": 5_000_000,
    "5 *million*": 5_000_000, "5&nbsp;million": 5_000_000, "5~million": 5_000_000, "₺5m": 5_000_000,
    "**5** dozen": None, "$5$x": None, "**5**x": None, "$5 m": None, "5x²": None, "$20$ m²": 20, "18~000": None,
    "$15 \\text{ m}$": 15, "$15m$": 15, "$15$m": 15, "**$15$** m": 15, "$15$k": None, "$5m": 5_000_000,
    "10 EUR-20 EUR": None,
    # times, dates, ratios, mixed units
    "7:00": None, "1:30": None, "3 : 4": None, "2024-05-01": None, "5'11": None, "2 hours 30 minutes": None,
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
    "- 4": 4, "it is -4": -4, "no number": None, "18 g of CO2": 18, "20 m^2": 20,
    # the last number is not understood: the one before it is another number
    "12, then 1,20": None, "7, then 1/0": None, "5 + 2 = \\sqrt{49}": None, "It arrives at 7:00.": None,
    "18 is 9 * 2x": None,
    "for day 3 $-18$": -18, "at x = 3 $-18$": -18, "10 EUR-20 EUR": 20, "10 €-20": 20, "10 $-20 $": 20,
    "5 hours and 30 minutes": None, "5 million 200 thousand": None, "cut off: \\frac{36": None,
    # where a reply says that its answer is
    "So \\boxed{18} dollars over the 7 days.": 18, "\\boxed{18}, that is \\boxed{18}, in 7 days": 18,
    "\\boxed{3}, no, \\boxed{4} of 5": 5, "She pays \\boxed{\\$9{,}500} in 7 days": 9500,
    "\\boxed{\\sqrt{2}}, about 1": None,
    "<think>9 * 2</think><answer>18</answer> (for 2 days)": 18, "<answer>\\boxed{18} in 7 days</answer> 5": 18,
    "9 * 2 = 18\n#### 18\n\nQuestion: 5 + 2?\n#### 7": 18, "#### $1,200 in 7 days": 1200, "#### 1:30": None,
    "#### Step 1\n#### 2. Add\nIt is 18": 18,
    "<reasoning>so</reasoning><answer>18</answer> in 2 steps": 18,
    "<reasoning>so</reasoning><answer>12 or 13</answer>": 13,
    "5": 5, "5" + " " * 20_000: 5,
}  # fmt: skip


@pytest.mark.parametrize(("reply", "value"), FLEXIBLE.items())
def test_the_flexible_answer_is_the_strict_one_else_the_last_number(reply, value):
    assert flexible_answer(reply) == value


def test_gold_answers_in_both_forms():
    assert gold_answer("9 + 9 = <<9+9=18>>18\n#### 18") == gold_answer("18") == gold_answer("$18.00") == 18
    assert gold_answer(r"We try \boxed{6}: 3+4=7, so \boxed{7}.") == 7
    for unreadable in ("", "#### ", "#### twelve", "1 or 2", r"\sqrt{2}", r"9\pi", "5x", "10!"):
        with pytest.raises(ValueError, match="no single number"):
            gold_answer(unreadable)


@pytest.fixture
def comma():
    use_decimal_mark("comma")
    yield
    use_decimal_mark("point")


def test_a_decimal_comma_is_read_everywhere_once_it_is_set(comma):
    written = {"1.200": 1200, "3,5": MIXED, "3,50 €": MIXED, "3{,}5": MIXED, "1.200,50": Fraction(2401, 2),
               "1.000.000": 10**6, "1 000": 1000, "18.": 18, "18,": 18, "1/2": HALF, "3.5": None}  # fmt: skip
    for text, value in written.items():
        assert read_number(text) == flexible_answer(text) == value, text
        assert strict_answer(format_reply("2 + 2", text)) == value
    assert gold_answer("400 x 3 = 1.200\n#### 1.200") == 1200
    assert gold_answer("7/2") == MIXED  # as transcripts keep it
    with pytest.raises(ValueError, match=r"'3\.5', but it is 7/2 with a decimal point: --decimal-mark point"):
        gold_answer("3.5")


def test_a_mark_that_may_be_the_wrong_one_is_said():
    with pytest.raises(ValueError, match="'3,5', but it is 7/2 with a decimal comma: --decimal-mark comma"):
        gold_answer("7 / 2 = 3,5\n#### 3,5")
    assert "1 may be thousands, such as '1.200', which is read as 6/5" in (Number().doubt(["18", "#### 1.200"]) or "")
    for plain in (["18", "1,200"], ["1.5", "1.200"], ["18", "0.125"], ["1200.125"]):
        assert Number().doubt(plain) is None
    use_decimal_mark("comma")
    try:
        assert "'1,200', which is read as 6/5" in (Number().doubt(["18", "1,200"]) or "")
    finally:
        use_decimal_mark("point")


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


JOINED = [*".,/:'’_^", "{,}", r"\,", r"\!", "\u202f", " / ", "e", "-1-"]


@given(st.integers(1, 999), st.integers(100, 999), st.sampled_from(JOINED))
def test_a_run_that_belongs_to_a_larger_whole_is_never_taken_alone(left, right, joined_by):
    assert flexible_answer(f"It is {left}{joined_by}{right}.") not in (left, right)
