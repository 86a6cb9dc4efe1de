"""Own reward functions: every form that TRL takes, what they receive, and what is said of those that break."""

import itertools
import json
from pathlib import Path

import pytest

from kit.checkpointing.same_run import check_same_run
from kit.cli.errors import UserError
from kit.settings.knobs import Settings
from kit.storage.run_folder import RunFolder
from kit.task.questions import load_questions
from kit.task.reward_columns import check_arguments, reward_columns, with_columns
from kit.task.user_rewards import maxima
from kit.training.run_record import describe_run
from rewards import choose_rewards

FORMS = """
import functools
import numpy as np
from fractions import Fraction

def _shorter(completions, limit, **kwargs):
    return [float(len(completion) < limit) for completion in completions]

short = functools.partial(_shorter, limit=3)

class Shorter:
    def __init__(self, limit):
        self.limit = limit
    def __call__(self, completions, **kwargs):
        return _shorter(completions, self.limit)

brief = Shorter(3)
by_name = lambda completions, **kwargs: _shorter(completions, 3)

def _below(limit):
    def reward(completions, **kwargs):
        return _shorter(completions, limit)
    return reward

below, far_below = _below(3), _below(1)

async def judged(completions, **kwargs):
    return _shorter(completions, 3)

async_part = functools.partial(judged)

def truths(completions, **kwargs):
    return np.array([len(completion) for completion in completions]) < 3

def single_truths(completions, **kwargs):
    return [np.bool_(len(completion) < 3) for completion in completions]

def fractions(completions, **kwargs):
    return (Fraction(len(completion) < 3) for completion in completions)
"""
NAMES = ["short", "brief", "by_name", "below", "judged", "async_part", "truths", "single_truths", "fractions"]


@pytest.fixture
def own(tmp_path):
    """A file of reward functions with this text, each time in a folder of its own; the path of it."""
    number = itertools.count()

    def write(text, name="mine.py"):
        folder = tmp_path / str(next(number))
        folder.mkdir()
        (folder / name).write_text(text)
        return folder / name

    return write


@pytest.mark.parametrize("name", NAMES)
def test_every_form_pays_under_the_name_that_it_was_chosen_by(own, name):
    (reward,), _ = choose_rewards(f"{own(FORMS)}:{name}")
    assert reward.__name__ == name
    assert reward(completions=["ab", "abc"], prompts=[], answer=["1", "2"]) == [1.0, 0.0]


def test_a_file_of_a_windows_editor_is_read_as_python_runs_it(own):
    plain, marked = own(FORMS), own("")
    marked.write_text(FORMS, encoding="utf-8-sig")
    sources = [choose_rewards(f"{file}:short")[0][0].source for file in (plain, marked)]
    assert sources[0] == sources[1]


def test_two_of_one_factory_are_two(own):
    file = own(FORMS)
    rewards, _ = choose_rewards(f"{file}:below,{file}:far_below")
    assert [reward(completions=["ab"]) for reward in rewards] == [[1.0], [0.0]]
    with pytest.raises(UserError, match="twice"):
        choose_rewards(f"{file}:below,{file}:below:2")


def test_what_is_kept_open_between_calls_stays_in_one_event_loop(own):
    file = own(
        "import asyncio\nloops = set()\nasync def judged(completions, **kw):\n"
        "    loops.add(asyncio.get_running_loop())\n    return [len(loops)] * len(completions)\n"
    )
    (reward,), _ = choose_rewards(f"{file}:judged")
    assert [reward(completions=["a"]), reward(completions=["a"])] == [[1.0], [1.0]]


def test_a_file_imports_its_neighbour_also_when_it_is_called(own):
    file = own("from near_by import clean\ndef tidy(completions, **kw):\n    import far_by\n"
               "    return [float(far_by.far == clean(c)) for c in completions]\n")  # fmt: skip
    (file.parent / "near_by.py").write_text("def clean(text):\n    return text.strip()\n")
    (file.parent / "far_by.py").write_text("far = 'a'\n")
    (reward,), _ = choose_rewards(f"{file}:tidy")
    assert reward(completions=[" a ", "b"]) == [1.0, 0.0]


def test_an_own_function_may_have_the_name_of_one_of_the_kits(own):
    file = own("def correctness(completions, **kw):\n    return [2.0] * len(completions)\n"
               "def capped(completions, **kw):\n    return [2.0]\ncapped.maximum = 3\n")  # fmt: skip
    rewards, _ = choose_rewards(f"{file}:correctness,{file}:capped,integer")
    assert maxima(rewards) == {"capped": 3.0, "integer": 1.0}
    both, _ = choose_rewards(f"{file}:correctness,correctness")
    assert [reward.__name__ for reward in both] == ["mine.correctness", "correctness"]
    assert maxima(both) == {"correctness": 1.0}


REFUSED = {
    "no **kwargs": ("def f(prompts, completions, answer):\n    pass", "add \\*\\*kwargs"),
    "no arguments": ("def f():\n    pass", "add \\*\\*kwargs"),
    "a most": ("def f(completions, **kw):\n    pass\nf.maximum = 'two'", "maximum of .* is 'two': make it a number"),
    "a class": ("class f:\n    def __init__(self, limit=1, **kw):\n        pass", "is a class, name an object"),
    "by position": ("def f(completions, /, **kw):\n    pass", "take the / out"),
    "no function": ("f = 3", "has no function 'f'"),
    "an end of its own": ("def f(**kw):\n    pass\n\nraise SystemExit(0)", "cannot be loaded \\(SystemExit: 0\\)"),
    "another's module": ("import nowhere_to_be_found", "ModuleNotFoundError"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_what_no_trainer_could_call_is_refused_when_it_is_chosen(own, text, words):
    with pytest.raises(UserError, match=words):
        choose_rewards(f"{own(text)}:f")


@pytest.mark.parametrize("weight", ["nan", "inf", "-inf", "1e999"])
def test_a_weight_is_a_number(weight):
    with pytest.raises(UserError, match="is no number, write NAME:2"):
        choose_rewards(f"integer:{weight}")


BROKEN = {
    "no return": ("scores = [1.0 for c in completions]", "returned None: is a return missing?"),
    "one number": ("return 0.5", "returned 0.5, which is no list of numbers"),
    "a dict": ("return dict.fromkeys(completions, 1.0)", "returned {'good': 1.0, 'bad': 1.0}, which is no list"),
    "texts": ("return ['1.0' for c in completions]", "returned '1.0', which is no number"),
    "always raises": (
        "return [kw['nothing'] for c in completions]",
        "raised KeyError: 'nothing' \\(mine.py, line 2\\)",
    ),
    "two numbers each": ("import numpy\n    return numpy.ones((len(completions), 2))", "returned \\[1.0, 1.0\\]"),
}


@pytest.mark.parametrize(("body", "words"), BROKEN.values(), ids=BROKEN)
def test_no_reply_is_blamed_for_what_every_reply_breaks(own, body, words):
    (reward,), _ = choose_rewards(f"{own(f'def f(completions, **kw):{chr(10)}    {body}')}:f")
    with pytest.raises(UserError, match=f"reward f {words}") as refusal:
        reward(completions=["good", "bad"])
    assert "The reply" not in str(refusal.value)


@pytest.fixture
def questions(tmp_path):
    rows = [
        {"question": "Tom has 3 pears and buys 4?", "answer": "3 + 4 = 7\n#### 7", "level": 1, "image": "a.png"},
        {"question": "7 halves?", "answer": "#### 3.50", "level": "hard", "completions": "no"},
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_questions(str(tmp_path / "data.jsonl"))


def test_a_function_receives_every_column_and_the_checked_answer(questions):
    received = {}

    def reward(**columns):
        received.update(columns)

    with_columns(reward, questions)(prompts=[], completions=["a", "b", "c"], trainer_state=None, row=[1, 0, 0])
    assert received["answer"] == ["3.5", "7", "7"]
    assert received["solution"] == ["#### 3.50", "3 + 4 = 7\n#### 7", "3 + 4 = 7\n#### 7"]
    assert received["question"] == ["7 halves?"] + ["Tom has 3 pears and buys 4?"] * 2
    assert (received["level"], received["image"]) == (["hard", 1, 1], [None, "a.png", "a.png"])
    assert received["completions"] == ["a", "b", "c"]  # the trainer's, whatever the data call so


def test_the_datas_own_solution_keeps_its_name(tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps({"problem": "9 + 9?", "solution": "Add.", "answer": "18"}))
    columns = reward_columns(load_questions(str(tmp_path / "data.jsonl"), question_column="problem"))
    assert (columns["solution"], columns["problem"], columns["question"]) == (["Add."], ["9 + 9?"], ["9 + 9?"])


def test_a_column_that_the_data_lack_is_named_beforehand(own, questions):
    file = own("def f(completions, ground_truth, level, prompts, limit=3, *, trainer_state, **kw):\n    pass")
    with pytest.raises(
        UserError,
        match="f wants 'ground_truth', which the data lack: there are solution, question, answer, level, image",
    ):
        check_arguments(choose_rewards(f"{file}:f,correctness")[0], questions)
    check_arguments(choose_rewards(f"{own(FORMS)}:short,correctness")[0], questions)


TWICE = "def correctness(completions, **kw):\n    import not_there\n"


def test_a_package_that_a_function_misses_when_it_is_called_is_named_beforehand(own, questions):
    file = own(
        "import helper\n"
        "def f(completions, **kw):\n    'Pays.'\n    limit = 3\n    from not_there.deep import x\n"
        "def g(completions):\n    import not_always\n"
        "def h(completions, **kw):\n    import helper, json, sympy.abc\n    from rewards import correctness\n"
        "    try:\n        import not_needed\n    except ImportError: pass\n    if kw: import seldom\n"
        "    import late\n    return g(completions)\n"
        "def twice(completions, **kw):\n    import gone\n"
        "def twice(completions, **kw):\n    import sys\n    sys.path.append('lib')\n    import judge\n"
        "calls = []\n"
        "def k(completions, **kw):\n    calls.append(1)\n    open(__file__ + '.called', 'w')\n"
    )
    (Path(file).parent / "helper.py").write_text("")
    with pytest.raises(UserError, match="f imports not_there, which is not there: install that beside"):
        check_arguments(choose_rewards(f"{file}:f")[0], questions)
    with pytest.raises(UserError, match=r"mine\.correctness imports not_there"):
        check_arguments(choose_rewards(f"correctness,{own(TWICE)}:correctness")[0], questions)
    check_arguments(choose_rewards(f"{file}:h,{file}:k,{file}:twice")[0], questions)
    assert not list(Path(file).parent.glob("*.called"))


def test_names_of_pythons_own_are_columns_and_methods(own):
    text = "class R:\n    def __call__(self, completions, **kw):\n        return [1.0]\n    def maximum(self): ...\n"
    ((reward,), _) = choose_rewards(f"{own(text + 'r = R()')}:r")
    assert reward.maximum is None
    ((reward,), _) = choose_rewards("correctness")
    reward(completions=[], answer=[], **{"self": []})


# Is it the function that the run began with?

PAY = """\
from scale import SCALE

LIMIT = 7

def _length(completion):
    return len(completion) % LIMIT

def other(completions, **kwargs):
    return [1.0] * len(completions)

def pay(completions, **kwargs):
    return [SCALE * _length(completion) for completion in completions]
"""


@pytest.fixture
def recorded(own, tmp_path, questions):
    """A run of these rewards is recorded; then, is it continued with those? What the refusal says, or ``None``."""

    def write(pay, scale):
        file = own(pay, "my_rewards.py")
        (file.parent / "scale.py").write_text(scale)
        return file

    def call(first, then, pay=PAY, scale="SCALE = 2\n", without=()):
        run = RunFolder(tmp_path / "run")
        run.path.mkdir()
        file = write(PAY, "SCALE = 2\n")
        record = describe_run(Settings(rewards=first.format(file)), questions, *choose_rewards(first.format(file)))
        run.write({name: value for name, value in record.items() if name not in without})
        chosen = then.format(write(pay, scale))
        try:
            check_same_run(run, Settings(rewards=chosen), questions, choose_rewards(chosen))
        except UserError as error:
            return str(error)

    return call


CONTINUES = {
    "a moved file": ("{}:pay", "{}:pay", PAY),
    "the default weight written out": ("{}:pay", "{}:pay:1", PAY),
    "spaces, another order": ("correctness,{}:pay:2", "{}:pay:2.0, correctness:4", PAY),
    "another function of the file edited": ("{}:pay", "{}:pay", PAY.replace("[1.0]", "[0.0]")),
    "a remark between the functions": ("{}:pay", "{}:pay", PAY.replace("LIMIT = 7\n", "LIMIT = 7\n\n# remark\n")),
}


@pytest.mark.parametrize(("first", "then", "pay"), CONTINUES.values(), ids=CONTINUES)
def test_the_same_rewards_continue_a_run(recorded, first, then, pay):
    assert recorded(first, then, pay) is None


OTHERS = {
    "edited": (PAY.replace("SCALE * _", "-SCALE * _"), "SCALE = 2\n"),
    "edited where it calls": (PAY.replace("len(completion)", "2 * len(completion)"), "SCALE = 2\n"),
    "an edited constant": (PAY.replace("= 7", "= 8"), "SCALE = 2\n"),
    "an edited neighbour": (PAY, "SCALE = 3\n"),
}


@pytest.mark.parametrize(("pay", "scale"), OTHERS.values(), ids=OTHERS)
def test_an_edited_function_is_refused_by_its_name(recorded, pay, scale):
    said = recorded("correctness,{}:pay", "correctness,{}:pay", pay, scale)
    assert "the reward function pay is another one" in said
    assert "correctness" not in said


def test_other_rewards_and_weights_are_refused(recorded):
    assert "the weight of pay 1 → 3" in recorded("{}:pay", "{}:pay:3")


def test_what_older_versions_recorded_for_nothing_is_no_difference(tmp_path, questions):
    run = RunFolder(tmp_path)
    record = describe_run(Settings(), questions, *choose_rewards("correctness"))
    del record["settings"]["system_prompt"]  # there was no such knob
    run.write(record | {"settings": record["settings"] | {"num_train_epochs": 2, "eval_strategy": False}})
    check_same_run(run, Settings(), questions, choose_rewards("correctness"))
    with pytest.raises(UserError, match="system_prompt  → Be brief"):
        check_same_run(run, Settings(system_prompt="Be brief."), questions, choose_rewards("correctness"))


def test_other_questions_are_refused(tmp_path, questions):
    run = RunFolder(tmp_path)
    run.write(describe_run(Settings(), questions, *choose_rewards("correctness")))
    with pytest.raises(UserError, match="the questions are others"):
        check_same_run(run, Settings(), questions[:-1], choose_rewards("correctness"))


def test_a_run_of_an_older_version_continues(recorded):
    assert recorded("{}:pay", "{}:pay", PAY.replace("= 7", "= 8"), without=("reward_sources",)) is None
