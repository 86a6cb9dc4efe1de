"""A task is one file: what it says holds in rewards, verdicts and data; what it gets wrong is said in a sentence."""

import hashlib
import json
import re
from textwrap import dedent

import pytest

from kit.cli.errors import UserError
from kit.grading import flexible_answer, gold_answer, is_correct, strict_answer, verdicts
from kit.prompts import build_prompt, format_reply
from kit.settings.reading import read_settings
from kit.task.questions import load_questions
from kit.task.task import DEFAULT, take_task, take_task_of, task_in_use, with_task
from kit.task.task_file import FOLDER, OF_THE_KIT
from rewards import choose_rewards
from tests.conftest import ROOT, run_script

NAMES = sorted(path.stem for path in FOLDER.iterdir() if path.suffix in (".yaml", ".py"))
WORDS = re.search(r"```python\n(.*?)```", (ROOT / "docs/your-task.md").read_text(encoding="utf-8"), re.DOTALL)[1]


@pytest.fixture(autouse=True)
def the_usual_task_again():
    yield
    take_task(DEFAULT)


@pytest.fixture
def own(tmp_path):
    """Takes a task of this text."""

    def take(text, name="mine.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return take_task(str(tmp_path / name))

    return take


def said(answer):
    return format_reply("so it is", answer)


def is_right(answer, gold):
    return is_correct(strict_answer(said(answer)), gold_answer(gold))


@pytest.mark.parametrize("name", NAMES)
def test_the_reply_of_its_example_earns_all_that_there_is(name):
    task = take_task(name)
    gold = task.gold or task.example.reply.partition("<answer>")[2].partition("</answer>")[0].strip()
    rewards, weights = choose_rewards(task.rewards)
    paid = [reward(completions=[task.example.reply], answer=[gold])[0] for reward in rewards]
    assert paid == [1.0] * len(weights)
    nothing = [reward(completions=["I do not know."], answer=[gold])[0] for reward in rewards]
    assert nothing == [0.0] * len(weights)


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


def test_only_the_tasks_that_came_with_the_kit_are_its_own(tmp_path):
    assert {path.stem for path in FOLDER.glob("[!_]*.*")} == OF_THE_KIT


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


def test_a_person_in_a_fence_is_paid_and_one_without_reasoning_or_half_known_is_not():
    take_task("person")
    rewards, weights = choose_rewards(task_in_use().rewards)

    def paid(reply, gold):
        chat = [[{"role": "assistant", "content": reply}]]
        each = [reward(prompts=[[]], completions=chat, answer=[gold]) for reward in rewards]
        return sum(weight * result for weight, (result,) in zip(weights, each, strict=True))

    ana = '{"name": "Ana", "age": 34, "city": "Rome"}'
    assert paid(said(f"```json\n{ana}\n```"), ana) == paid(said(ana), ana) == sum(weights)
    assert paid(f"<answer>{ana}</answer>", ana) == 0
    assert paid(said("no"), ana.replace("34", "null")) == 0.5  # for its form alone


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


def test_a_task_holds_what_is_written_there(own):
    """YAML 1.1 reads 12:30 as 750, 0612 as 394, 1.50 as 1.5 and a day as a date."""
    for written in ("12:30", "0612", "1.50", "2024-05-01", "null", "yes"):
        task = own(f"answer: text\nexample: {{question: q, reasoning: so, answer: {written}}}")
        assert f"<answer>\n{written}\n</answer>" in task.example.reply
    assert own("answer: [9:30, 012, 1.50]\nexample: {question: q, reasoning: so, answer: 012}").answers.choices == (
        "9:30", "012", "1.50",
    )  # fmt: skip
    task = own(
        "answer: json\nexample: {question: q, reasoning: so, answer: {n: 3, x: 1.50, y: .5, t: True, o: ~, w: 12:30}}"
    )
    assert '{"n": 3, "x": 1.5, "y": 0.5, "t": true, "o": null, "w": "12:30"}' in task.example.reply


def test_what_a_file_that_nobody_edited_says_has_the_hash_of_before(own):
    text = "answer: number\ntags: ~\nrewards: {correctness: 4, soft_format: 0.5}\n"
    text += "example: {question: q, reasoning: so, answer: 5}"
    said = {"answer": "number", "tags": None, "rewards": {"correctness": 4, "soft_format": 0.5},
            "example": {"question": "q", "reasoning": "so", "answer": 5}}  # fmt: skip
    assert own(text).source == hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


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


def test_tags_are_the_tasks_own(own):
    own("answer: number\ntags: {reasoning: think, answer: result}\nexample: {question: q, reasoning: so, answer: 7}")
    assert "<think>" in build_prompt("1 + 1?")[0]["content"]
    assert strict_answer("<think>1 + 1</think><result>2</result>") == 2
    assert strict_answer("<reasoning>1 + 1</reasoning><answer>2</answer>") is None


def test_the_datas_answers_are_of_the_tasks_kind(tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text('{"question": "Which?", "answer": "2"}\n')
    take_task("choice")
    with pytest.raises(UserError, match="line 1: the answer '2' is none of A, B, C, D"):
        load_questions(str(file))
    game = {"question": "Use 9 and 4 to make 13.", "answer": {"numbers": [9, 4], "target": 13}}
    file.write_text(json.dumps(game))
    take_task("countdown")
    (row,) = load_questions(str(file))
    assert json.loads(row["gold"]) == game["answer"]
    take_task(DEFAULT)
    with pytest.raises(UserError, match=r"'answer' is an object, not a text; .* answer.target"):
        load_questions(str(file))


PLAIN = "example: {question: q, reasoning: so, answer: 7}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN, "answer must be number, text, json, or a list of choices"),
        (PLAIN + "answer: numbers", "it is 'numbers'"),
        (PLAIN + "answer: [A, a]", "at least two choices that differ"),
        (PLAIN + "answer: [A, B]", "its example does not hold just one of A, B"),
        (PLAIN + "answer: number\nprompt: hello", "says prompt, which no task has"),
        (PLAIN + "answer: number\nsystem_prompt: Think.", "does not show <reasoning> </reasoning> <answer> </answer>"),
        (PLAIN + "answer: number\ntags: {reasoning: answer}", "two different words"),
        (PLAIN + "answer: number\nrewards: [correctness]", "rewards must be a recipe"),
        ("answer: number", "example must hold question, reasoning and answer"),
        ("answer: number\nexample: {question: q, reasoning: so, answer: 7, gold: 8}", "not right, beside its gold '8'"),
        ("answer: number\nexample: {question: q, reasoning: so it is, answer: 1,200}", "example holds 200"),
        ("- 1", "must hold lines of the form"),
        ("answer: [", "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(own, text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        own(text)
    with pytest.raises(UserError, match="choose from choice, countdown, gsm8k, person, or name a FILE"):
        take_task("chioce")


def test_yes_and_no_are_words(own):
    own("answer: [yes, no]\nexample: {question: q, reasoning: so, answer: 'no'}")
    assert is_right("Yes", "yes")
    assert not is_right("no", "yes")


def test_a_function_that_breaks_is_named(own):
    task = own(WORDS.replace("words == read_answer(gold)", "bool(1 / len(gold.strip('x')))"), "my_words.py")
    with pytest.raises(UserError, match=r"is_right of .*my_words.py raised ZeroDivisionError.*'xx'"):
        is_right("a, b, c, d, e", "xx")
    assert task is task_in_use()


def test_the_task_says_what_is_paid_unless_the_user_does(own, capsys):
    task = own(WORDS, "my_words.py")
    settings, _ = read_settings([], "")
    assert with_task(settings, task).rewards == task.rewards
    settings, _ = read_settings(["--rewards", "soft_format", "--system-prompt", "Be brief."], "")
    assert with_task(settings, task).rewards == "soft_format"
    assert "the system prompt does not show <reasoning>" in capsys.readouterr().out
    with pytest.raises(UserError, match="integer pays for whole numbers, and the answers of this task are none"):
        choose_rewards("original")


def test_a_task_that_was_edited_judges_no_run_of_before(own, tmp_path):
    task = own(WORDS, "my_words.py")
    trained = {"settings": {"task": str(tmp_path / "my_words.py")}, "task": {"source": task.source}}
    assert take_task_of(trained).source == task.source
    own(WORDS.replace('"in_place": 1', '"in_place": 2'), "my_words.py")
    with pytest.raises(UserError, match="is another than it was in training"):
        take_task_of(trained)
    assert take_task_of({"settings": {}}).name == DEFAULT
    assert take_task_of({"settings": {"task": "choice"}, "task": {"source": "of an older kit"}}).name == "choice"
    with pytest.raises(UserError, match="a program inside the run folder: read it"):
        take_task_of(trained, tmp_path)


def test_without_its_task_no_answer_is_blamed(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "The capital of Peru?", "answer": "Lima"}\n')
    refused = run_script(
        "train_lora.py", "--task", "nowhere.yaml", "--dataset", tmp_path / "q.jsonl", "--model", tmp_path, check=False
    )
    assert "nowhere.yaml does not exist" in refused.stderr
    assert "Lima" not in refused.stderr


def test_a_task_written_from_the_page_alone_trains_and_is_scored(chain, tmp_path):
    """Five words in order: the page's own file, every command that it names."""
    task, data = tmp_path / "my_words.py", tmp_path / "words.jsonl"
    task.write_text(WORDS, encoding="utf-8")
    fruits = ["fig", "kiwi", "lime", "pear", "plum", "date", "lemon"]
    rows = [{"question": ", ".join(fruits[i:] + fruits[:i]), "answer": ", ".join(sorted(fruits[:5]))} for i in range(7)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reply = tmp_path / "reply.txt"
    reply.write_text("<reasoning>\nf, k, l\n</reasoning>\n<answer>\nfig, kiwi, lime, plum, pear\n</answer>")
    explained = run_script("rewards.py", "--task", task, "--explain", reply, "--answer", "fig, kiwi, lime, pear, plum")
    shown = re.search(r"```\n(correctness .*?)```", (ROOT / "docs/your-task.md").read_text("utf-8"), re.DOTALL)[1]
    assert explained.stdout.replace(str(task), "my_words.py") == shown
    run = tmp_path / "run"
    trained = run_script(
        "train_lora.py", "--config", "tests/short.yaml", "--task", task, "--model", chain / "base", "--max-steps", "1",
        "--rewards", f"correctness,{task}:in_place,soft_format,xml_count", "--dataset", data, "--output-dir", run,
    )  # fmt: skip
    assert "1/1" in trained.stdout
    line = json.loads((run / "metrics.jsonl").read_text())
    assert set(line["rewards"]) == {"correctness", "in_place", "soft_format", "xml_count"}
    scored = run_script("evaluate.py", run / "adapter", "--dataset", data, "--limit", "3", "--output-dir", run)
    assert "strict" in scored.stdout
    (transcript,) = (run / "transcripts").glob("*.jsonl")
    assert json.loads(transcript.read_text().splitlines()[0])["gold"] == "fig, kiwi, lime, pear, plum"
    assert "alphabetical order" in (run / "run.yaml").read_text()
    other = run_script("train_lora.py", "--config", "tests/short.yaml", "--model", chain / "base", "--max-steps", "1",
                       "--rewards", "soft_format", "--dataset", data, "--output-dir", run, check=False)  # fmt: skip
    assert other.returncode == 2
