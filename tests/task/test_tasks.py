"""A task is one file: what it says holds in rewards, verdicts and data; what it gets wrong is said in a sentence."""

import hashlib
import json
import re

import pytest

from kit.cli.errors import UserError
from kit.grading import strict_answer
from kit.prompts import build_prompt
from kit.settings.reading import read_settings
from kit.task.questions import load_questions
from kit.task.task import DEFAULT, take_task, take_task_of, task_in_use, with_task
from kit.task.task_file import FOLDER, OF_THE_KIT
from rewards import choose_rewards
from tests.conftest import ROOT, run_script
from tests.task.conftest import is_right, said

NAMES = sorted(path.stem for path in FOLDER.iterdir() if path.suffix in (".yaml", ".py"))
WORDS = re.search(r"```python\n(.*?)```", (ROOT / "docs/your-task.md").read_text(encoding="utf-8"), re.DOTALL)[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_reply_of_its_example_earns_all_that_there_is(name):
    task = take_task(name)
    gold = task.gold or task.example.reply.partition("<answer>")[2].partition("</answer>")[0].strip()
    rewards, weights = choose_rewards(task.rewards)
    paid = [reward(completions=[task.example.reply], answer=[gold])[0] for reward in rewards]
    assert paid == [1.0] * len(weights)
    nothing = [reward(completions=["I do not know."], answer=[gold])[0] for reward in rewards]
    assert nothing == [0.0] * len(weights)


def test_only_the_tasks_that_came_with_the_kit_are_its_own(tmp_path):
    assert {path.stem for path in FOLDER.glob("[!_]*.*")} == OF_THE_KIT


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
