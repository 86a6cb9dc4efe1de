"""The laws that the rewards hold to, each over generated replies and over a table of named odd ones."""

import os

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rewards
from demo.problems import write_problems
from kit.cli.errors import UserError
from kit.prompts import build_prompt, format_reply, parse_reply, tags
from kit.task.questions import load_questions
from rewards import RECIPES, REWARDS, choose_rewards, total

TAGS = tags()
GOOD = format_reply("9 + 9 = 18", "18")
ODD = {
    "a good reply": GOOD,
    "with a final line break": GOOD + "\n",
    "soft only": "<reasoning>so</reasoning><answer>18</answer>",
    "wrong number": format_reply("so", "19"),
    "half a number": format_reply("so", "1/2"),
    "no number": format_reply("so", "eighteen"),
    "two numbers": format_reply("so", "18 or 19"),
    "bare number": "18",
    "answer block alone": "<answer>18</answer>",
    "empty reasoning": "<reasoning></reasoning><answer>18</answer>",
    "reasoning of dots": format_reply("...", "18"),
    "answer of dots": format_reply("so", "..."),
    "reasoning of a tag's remains": "<reas<reasoning>oning></reasoning><answer>18</answer>",
    "a tag in two": "<reasoning><reasoning></reasoning><ans<reasoning>wer>18</answer>",
    "no closing tag": "<reasoning>so</reasoning><answer>18",
    "two answers": "<reasoning>so</reasoning><answer>17</answer><answer>18</answer>",
    "four answers": "<reasoning>so</reasoning>" + "<answer>18</answer>" * 4,
    "wrong order": "<answer>18</answer><reasoning>so</reasoning>",
    "chatter around it": "Sure!\n" + GOOD + "\nHope that helps!",
    "all tags, no content": "".join(TAGS),
    "nothing": "",
}

pieces = st.sampled_from(
    [*TAGS, "18", "19", "-18", "1/2", "so", "\n", " ", "<", ">", "<ans", "wer>", "<reaso", "ning>", "$"]
)
replies = st.one_of(
    st.lists(pieces, max_size=14).map("".join),
    st.tuples(st.sampled_from(["so", "", " "]), st.sampled_from(["18", "19", "x"])).map(
        lambda pair: format_reply(*pair)
    ),
    st.sampled_from(list(ODD.values())),
)
golds = st.sampled_from(["18", "1/2", "-18"])


STRICT = {
    GOOD: True,
    GOOD + "\n": True,
    GOOD + "\n\n": False,
    "\n" + GOOD: False,
    GOOD.replace("</reasoning>\n", "</reasoning>"): False,
    GOOD.replace("</reasoning>\n", "</reasoning>\n\n"): False,
    GOOD.replace("<reasoning>\n", "<reasoning>"): False,
    GOOD.replace("\n</reasoning>", "</reasoning>"): False,
    GOOD.replace("<answer>\n", "<answer>"): False,
    GOOD.replace("\n</answer>", "</answer>"): False,
    GOOD.replace("9 + 9 = 18", "9\n+\n9"): True,
    GOOD.replace("9 + 9 = 18", ""): False,
    GOOD.replace("\n18\n", "\n\n"): False,
}


@pytest.mark.parametrize(("reply", "strict"), STRICT.items())
def test_strict_form_has_the_line_breaks_of_the_system_prompt(reply, strict):
    parsed = parse_reply(reply)
    assert parsed.strict is strict
    assert parsed.soft or not strict


@pytest.mark.parametrize("pieces", [("so", "", ""), ("", "so", ""), ("", "", "so")])
def test_words_before_between_or_after_the_blocks_cost_the_format(pieces):
    before, between, after = pieces
    reply = f"{before}<reasoning>so</reasoning>{between}<answer>18</answer>{after}"
    assert parse_reply(reply).answer == "18"
    assert not parse_reply(reply).soft


def test_the_prompt_shows_the_format_that_pays():
    prompt = build_prompt("9 + 9?", "Be brief.")
    assert prompt == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "9 + 9?"}]
    shown = build_prompt("9 + 9?")[0]["content"].partition("format:\n")[2]
    assert not parse_reply(shown).soft  # copied as it stands it says nothing
    assert parse_reply(shown.replace("...", "18 or so")).strict


def test_every_completion_needs_its_answer():
    with pytest.raises(ValueError, match="shorter"):
        REWARDS["correctness"]([GOOD, GOOD], answer=["18"])


def is_correct_and_in_format(reply, gold, recipe):
    parsed = parse_reply(reply)
    return REWARDS["correctness"]([reply], answer=[gold]) == [1.0] and (
        parsed.strict if recipe == "original" else parsed.soft
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    {"a good reply": 4.0, "with a final line break": 4.0, "soft only": 3.5, "wrong number": 2.0, "half a number": 1.5,
     "no number": 1.5, "two numbers": 1.5, "bare number": 0.0, "answer block alone": 0.25, "empty reasoning": 0.5,
     "reasoning of dots": 0.5, "answer of dots": 0.5,
     "reasoning of a tag's remains": 0.0, "no closing tag": 0.375, "two answers": 0.25, "wrong order": 0.5,
     "chatter around it": 3.0, "nothing": 0.0}.items(),
)  # fmt: skip
def test_what_a_reply_is_worth_by_the_original_recipe(name, expected):
    assert total(ODD[name], "18", "original") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    {"a good reply": 4.75, "with a final line break": 4.75, "soft only": 4.75, "wrong number": 0.75, "no number": 0.75,
     "two numbers": 0.75, "bare number": 0.0, "answer block alone": 0.125, "empty reasoning": 0.25, "nothing": 0.0,
     "chatter around it": 4.25}.items(),
)  # fmt: skip
def test_what_a_reply_is_worth(name, expected):
    assert total(ODD[name], "18") == expected


@pytest.mark.parametrize("recipe", RECIPES)
@settings(max_examples=1000)
@given(reply=replies, gold=golds)
def test_law_1_correct_and_in_format_beats_everything_else(recipe, reply, gold):
    best = total(format_reply("so", gold), gold, recipe)
    if not is_correct_and_in_format(reply, gold, recipe):
        assert total(reply, gold, recipe) < best
    else:
        assert total(reply, gold, recipe) == best


def test_being_right_pays_more_than_all_else_together():
    """Or a model that is seldom right learns to risk no format, and leaves out its reasoning."""
    weights = RECIPES["sums"]
    assert weights["correctness"] > 5 * sum(weight for name, weight in weights.items() if name != "correctness")


@pytest.mark.parametrize(
    "block",
    [" \n ", "...", "…", ".", "–", "1", "\u200b", "\u2060\u3164", "<!-- I add -->", "<!-- 9+9", "<b></b>", "&nbsp;",
     r"\ldots", "**", "___"],
)  # fmt: skip
def test_law_2_reasoning_that_says_nothing_is_no_reasoning(block):
    reply = format_reply(block, "18")
    assert total(reply, "18") == RECIPES["sums"]["xml_count"]  # the four tags
    assert not parse_reply(reply).reasoned
    assert "the reasoning block says nothing" in rewards.explain(reply, "18")
    assert total(format_reply("9+9", "18"), "18") == 4.75


@given(replies, golds)
def test_law_2_no_credit_without_reasoning(reply, gold):
    if not parse_reply(reply).reasoning:
        assert REWARDS["correctness"]([reply], answer=[gold]) == [0.0]


@settings(max_examples=500)
@given(replies, golds, st.text(st.characters(exclude_characters="<>"), min_size=1), st.data())
def test_law_3_words_outside_the_tags_never_pay(reply, gold, words, data):
    assume(words.strip())  # a line break alone may be the one that strict format asks for
    parsed = parse_reply(reply)
    if parsed.answer is None:
        places = [0, len(reply)]
    else:
        inner = reply.index(TAGS[1]) + len(TAGS[1])
        places = [0, inner, reply.index(TAGS[2]), len(reply)]
    place = data.draw(st.sampled_from(places))
    for recipe in RECIPES:
        assert total(reply[:place] + words + reply[place:], gold, recipe) <= total(reply, gold, recipe)


@settings(max_examples=1000)
@given(replies, golds, st.sampled_from(TAGS), st.data())
def test_law_3_another_copy_of_a_tag_never_pays(reply, gold, tag, data):
    assume(tag in reply)
    place = data.draw(st.integers(0, len(reply)))
    for recipe in RECIPES:
        assert total(reply[:place] + tag + reply[place:], gold, recipe) <= total(reply, gold, recipe)


@pytest.mark.parametrize("reply", ODD.values(), ids=ODD)
def test_law_3_at_every_place_of_the_odd_replies(reply):
    for tag in TAGS:
        for place in range(len(reply) + 1):
            if tag in reply:
                assert total(reply[:place] + tag + reply[place:], "18") <= total(reply, "18")


@given(st.lists(replies, min_size=1, max_size=6), st.randoms())
def test_law_4_a_reply_is_worth_the_same_in_any_company(batch, rng):
    shuffled = rng.sample(batch, len(batch))
    for function in REWARDS.values():
        alone = {reply: function([reply], answer=["18"])[0] for reply in batch}
        assert function(shuffled, answer=["18"] * len(shuffled)) == [alone[reply] for reply in shuffled]


GSM8K_FOLDER = os.environ.get("GSM8K_DIR")  # the data set is not part of the repository


@pytest.mark.skipif(GSM8K_FOLDER is None, reason="GSM8K_DIR names no folder with GSM8K's train.jsonl and test.jsonl")
@pytest.mark.parametrize("recipe", RECIPES)
def test_law_5_every_gold_solution_of_gsm8k_is_worth_the_most(recipe):
    rows = [row for name in ("train", "test") for row in load_questions(f"{GSM8K_FOLDER}/{name}.jsonl")]
    assert len(rows) == 7473 + 1319
    are_worth_the_most(rows, recipe)


@pytest.mark.parametrize("recipe", RECIPES)
def test_law_5_holds_for_the_demos_problems_too(recipe, tmp_path):
    write_problems(tmp_path, seed=0)
    are_worth_the_most(load_questions(str(tmp_path / "train.jsonl")), recipe)


def are_worth_the_most(rows, recipe):
    """Worked solutions, beside the same with another number."""
    most = sum(RECIPES[recipe].values())
    assert rows
    for row in rows:
        steps, _, gold = row["answer"].rpartition("\n#### ")
        assert total(format_reply(steps, gold), row["answer"], recipe) == most
        other = str(int(gold.replace(",", "")) + 1)
        wrong = most - RECIPES[recipe]["correctness"]
        assert total(format_reply(steps, other), row["answer"], recipe) == wrong


def test_completions_may_be_conversations():
    conversation = [[{"role": "assistant", "content": GOOD}]]
    for name, function in REWARDS.items():
        assert function(completions=conversation, answer=["18"], prompts=[[]], trainer_state=None) == [1.0], name


# --rewards


def test_choosing_and_weighing():
    functions, weights = choose_rewards("correctness:3, soft_format")
    assert [function.__name__ for function in functions] == ["correctness", "soft_format"]
    assert weights == [3.0, 0.5]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_whole_recipe(recipe):
    functions, weights = choose_rewards(recipe)
    assert dict(zip([function.__name__ for function in functions], weights, strict=True)) == RECIPES[recipe]


def own(tmp_path, body):
    file = tmp_path / "own_rewards_file.py"
    file.write_text(f"def brevity(completions, **columns):\n    {body}\n")
    return f"{file}:brevity"


def test_a_users_own_function(tmp_path):
    functions, weights = choose_rewards(
        "correctness," + own(tmp_path, "return [1 / len(c) for c in completions]") + ":0.2"
    )
    assert weights == [4.0, 0.2]
    assert functions[1](completions=["ab", "abcd"], answer=["1", "2"]) == [0.5, 0.25]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return [1 / (len(c) - 3) for c in completions]", "raised ZeroDivisionError.*'bad'"),
        ("return [1.0]", "returned 1 rewards for 2"),
        ("return ['x' if c == 'bad' else 1.0 for c in completions]", "returned 'x', which is no number.*'bad'"),
        ("return [float('nan') if c == 'bad' else 1.0 for c in completions]", "returned nan.*'bad'"),
    ],
)
def test_an_own_function_that_breaks_stops_the_run_with_its_name_and_the_reply(tmp_path, body, words):
    (function,), _ = choose_rewards(own(tmp_path, body))
    with pytest.raises(UserError, match=f"reward brevity {words}"):
        function(completions=["good", "bad"], answer=["1", "2"])


def test_none_means_cannot_judge(tmp_path):
    (function,), _ = choose_rewards(own(tmp_path, "return [None for c in completions]"))
    assert function(completions=["x"]) == [None]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            "correctnes",
            "'correctnes', choose from correctness, integer, strict_format, soft_format, xml_count, name",
        ),
        ("integer:much", "'much' of integer is no number, write NAME:2"),
        ("integer:1:2", "'1:2' of integer is no number"),
        ("nowhere.py:brevity", "nowhere.py does not exist"),
        ("rewards.py", "name the function in it"),
        ("rewards.py:nothing", "has no function 'nothing'"),
        ("integer,integer:2", "'integer' twice"),
    ],
)
def test_a_wrong_choice_is_refused(wanted, words):
    with pytest.raises(UserError, match=words):
        choose_rewards(wanted)


def test_all_wrong_choices_are_named(tmp_path):
    with pytest.raises(UserError) as refusal:
        choose_rewards("integerr,integer:much,integer,correctness:x")
    assert len(refusal.value.problems) == 3


def test_an_own_function_weighs_1_unless_told(tmp_path):
    assert choose_rewards(own(tmp_path, "return [0]"))[1] == [1.0]


# --explain
