"""`rewards.py --explain`: what each reward saw, in words, of any reply and any file."""

import io
import json

import pytest

import rewards
from kit.cli.errors import UserError
from kit.prompts import format_reply
from rewards import total
from tests.conftest import run_script
from tests.test_rewards import GOOD, ODD


@pytest.fixture
def explained(monkeypatch, capsys):
    """What ``python rewards.py --explain …`` prints, from within this process."""

    def call(*arguments):
        options = [] if "--help" in arguments else ["--explain"]
        monkeypatch.setattr("sys.argv", ["rewards.py", *options, *map(str, arguments)])
        rewards.main()
        return capsys.readouterr().out

    return call


HEDGE = "<reasoning>só</reasoning><answer>12 or 13</answer>"
HEDGE_EXPLAINED = """\
correctness    0.00 x 4     the answer block '12 or 13' does not hold exactly one number
soft_format    1.00 x 0.5   both blocks, in order, with nothing around them
xml_count      1.00 x 0.25  4 of 4 tags stand exactly once
total          0.75 of 4.75
"""


def test_explain_says_what_each_reward_saw(tmp_path, explained):
    reply = tmp_path / "reply.txt"
    reply.write_text(HEDGE, encoding="utf-8")
    assert explained(reply, "--answer", "12") == HEDGE_EXPLAINED


def test_explain_reads_standard_input(monkeypatch, explained):
    monkeypatch.setattr("sys.stdin", io.StringIO(HEDGE))
    assert explained("-", "--answer", "12") == HEDGE_EXPLAINED


def test_explain_reads_the_transcripts_that_the_kit_writes(tmp_path, explained):
    file = tmp_path / "samples.jsonl"
    rows = [{"reply": GOOD, "gold": "18"}, {"reply": GOOD, "answer": "#### 19"}, {"reply": HEDGE, "gold": "12"}]
    file.write_text("\n\n".join(json.dumps(row) for row in rows))
    first, second, third = explained(file).split("\n\n")
    assert (first[-12:], second[-12:], third) == ("4.75 of 4.75", "0.75 of 4.75", HEDGE_EXPLAINED)
    assert explained(file, "--answer", "18").count("4.75 of 4.75") == 2  # the command line wins


def test_explain_tells_what_could_not_judge_from_what_paid_nothing(tmp_path, explained):
    (tmp_path / "mine.py").write_text("def unsure(completions, **_):\n    return [None] * len(completions)\n")
    (tmp_path / "reply.txt").write_text(GOOD)
    said = explained(tmp_path / "reply.txt", "--answer", "18", "--rewards", f"sums,{tmp_path / 'mine.py'}:unsure:2")
    assert "unsure           -- x 2     None: it cannot judge this reply" in said
    assert said.endswith("total          4.75 of 4.75\n")


def test_explain_takes_zero_null_and_conversations(tmp_path, explained):
    file = tmp_path / "samples.jsonl"
    zero = {"reply": format_reply("5 - 5 = 0", "0"), "gold": 0}
    talk = {
        "reply": [{"role": "assistant", "content": GOOD.replace("9 + 9", "9\u2028+ 9")}],
        "gold": None,
        "answer": 18,
    }
    file.write_text("\ufeff" + "\n".join(json.dumps(row, ensure_ascii=False) for row in (zero, talk)), encoding="utf-8")
    assert explained(file).count("4.75 of 4.75") == 2
    for reply in (None, 18, [], [{"role": "assistant", "content": None}]):
        file.write_text(json.dumps(zero) + "\n" + json.dumps({"reply": reply, "gold": 1}))
        with pytest.raises(UserError, match=r"line 2: the reply is .*no text: give a text, or a list of messages"):
            explained(file)


def test_explain_reads_a_decimal_comma_where_it_is_told(tmp_path, explained):
    file = tmp_path / "samples.jsonl"
    rows = [{"reply": format_reply("400 x 3", "1.200 cajas"), "gold": "1.200"}, {"reply": GOOD, "gold": 18.0}]
    file.write_text("\n".join(map(json.dumps, rows)))
    try:
        assert explained(file, "--decimal-mark", "comma").count("4.75 of 4.75") == 2
        assert "gives 1200, which equals 1200" in explained(file, "--decimal-mark", "comma")
    finally:
        assert "gives 6/5, which equals 6/5" in explained(file)
    reply = tmp_path / "reply.txt"
    reply.write_text(format_reply("7 / 2", "3,5"))
    assert "but it is 7/2 with a decimal comma: --decimal-mark comma reads it so" in explained(reply, "--answer", "7/2")


def test_an_own_function_gets_the_answer_that_training_gives_it(tmp_path, explained):
    (tmp_path / "mine.py").write_text("def close(completions, answer, **_):\n    return [float(a) for a in answer]\n")
    (tmp_path / "reply.txt").write_text(GOOD)
    shown = explained(tmp_path / "reply.txt", "--answer", "3.5", "--rewards", f"{tmp_path}/mine.py:close")
    assert "3.50 x 1" in shown


UNSLOTHS = """
def check_answer(prompts, completions, answer, level=None, **kwargs):
    print(prompts[0][-1]["content"])
    return [float(level[0])]

def soft(completions, completion_ids, **kwargs):
    return [1.0]
"""


def test_an_own_function_gets_the_question_and_the_columns_of_its_line(tmp_path, explained):
    (tmp_path / "mine.py").write_text(UNSLOTHS)
    line = {"question": "9 + 9?", "reply": GOOD, "gold": "18", "level": 3}
    (tmp_path / "replies.jsonl").write_text(json.dumps(line))
    both = ("--rewards", f"{tmp_path}/mine.py:check_answer,{tmp_path}/mine.py:soft")
    shown = explained(tmp_path / "replies.jsonl", *both)
    assert "9 + 9?" in shown
    assert "3.00 x 1" in shown
    assert "wants completion_ids, which only a training has" in shown
    (tmp_path / "reply.txt").write_text(GOOD)
    assert "wants prompts, which a .jsonl can give" in explained(tmp_path / "reply.txt", "--answer", "18", *both)


def test_a_file_called_as_ours_and_its_neighbour_get_the_kits_rewards(tmp_path):
    own = "from rewards import correctness\ndef brief(completions, **kw):\n    return correctness(completions, **kw)\n"
    for name in ("rewards.py", "other.py"):
        (tmp_path / name).write_text(own)
    (tmp_path / "reply.txt").write_text(GOOD)
    wanted = f"{tmp_path}/rewards.py:brief:2,{tmp_path}/other.py:brief"
    shown = run_script("rewards.py", "--explain", tmp_path / "reply.txt", "--answer", "18", "--rewards", wanted)
    assert "3.00 of 3" in shown.stdout


@pytest.mark.parametrize("line", ["{oops", "[1]", '{"gold": "18"}', '"text"'])
def test_explain_names_a_bad_line(tmp_path, explained, line):
    file = tmp_path / "samples.jsonl"
    file.write_text(line)
    with pytest.raises(UserError, match="each line must be a JSON object with a reply"):
        explained(file)


@pytest.mark.parametrize("arguments", [[], ["--answer", "many"]])
def test_explain_needs_a_right_answer(tmp_path, explained, arguments):
    file = tmp_path / "reply.txt"
    file.write_text(GOOD)
    with pytest.raises(UserError, match=r"the right answer must be a number .*--answer 18"):
        explained(file, *arguments)


def test_explain_names_a_file_that_cannot_be_read(tmp_path, explained):
    (tmp_path / "latin.txt").write_bytes(b"\xff")
    for file in (tmp_path / "none.txt", tmp_path / "latin.txt"):
        with pytest.raises(UserError, match=r"cannot be read .*name a text file, a \.jsonl file, or -"):
            explained(file, "--answer", "18")


@pytest.mark.parametrize("reply", ODD.values(), ids=ODD)
def test_every_odd_reply_can_be_explained(reply):
    assert f"{total(reply, '18'):5.2f} of 4.75" in rewards.explain(reply, "18")
    original = rewards.explain(reply, "18", "original")
    assert f"{total(reply, '18', 'original'):5.2f} of 4" in original
    assert len(original.splitlines()) == 6


def test_explain_shows_the_recipe_that_it_is_told(tmp_path, explained):
    reply = tmp_path / "reply.txt"
    reply.write_text(HEDGE, encoding="utf-8")
    assert "total          1.00 of 4\n" in explained(reply, "--answer", "12", "--recipe", "original")


def test_explain_must_be_told_what(monkeypatch):
    monkeypatch.setattr("sys.argv", ["rewards.py"])
    with pytest.raises(UserError, match="required: --explain"):
        rewards.main()


def test_help_says_what_it_takes(explained, capsys):
    with pytest.raises(SystemExit):
        explained("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for words in (rewards.__doc__.splitlines()[0], "--explain FILE a reply as text, a JSONL of replies, or -",
                  "--answer N the right answer", "--decimal-mark {point,comma} of replies and answers"):  # fmt: skip
        assert words in shown


def test_explain_refuses_in_one_sentence():
    for arguments in (["nowhere.txt", "--answer", "18"], ["README.md"], ["README.md", "--answer", "many"]):
        refused = run_script("rewards.py", "--explain", *arguments, check=False)
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1


def test_explain_needs_no_torch():
    shown = run_script("-c", "import sys, rewards; print(sorted({'torch', 'numpy', 'trl'} & set(sys.modules)))")
    assert shown.stdout.strip() == "[]"
