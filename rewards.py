"""What a reply is worth: the XML reward functions, in TRL's shape.

    python rewards.py --explain reply.txt --answer 18     what each reward saw and why it paid or did not
    python train_lora.py --rewards original               the five rewards of the recipe that everybody copies
    python train_lora.py --rewards correctness:2,soft_format:0.5,my_rewards.py:brevity:0.2

Each function takes ``completions`` (texts, or conversations of which the last message counts) and the data set's
columns, and returns one number from 0 to 1 per completion; TRL multiplies it with its weight. They are pure: the
same reply always scores the same, whatever else is in the batch. How numbers are read (also with which decimal mark,
which a script sets once) and judged is decided in ``kit/grading.py``, which the evaluation uses too.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

from kit.answers.number import Number
from kit.cli.command_line import Parser, at_home
from kit.cli.errors import UserError, run_script
from kit.grading import answer_kind, gold_answer, is_correct, strict_answer
from kit.numbers.reading import DECIMAL_MARKS, use_decimal_mark
from kit.prompts import build_prompt, parse_reply, tags
from kit.task.reward_reasons import reason
from kit.task.row_texts import answer_text
from kit.task.task import DEFAULT, take_task
from kit.task.user_rewards import Reward, RewardFunction, load_reward

Completion = str | list[dict[str, str]]


def correctness(completions: list[Completion], answer: list[str], **columns) -> list[float]:
    """1 where the answer block holds the right answer, after a reasoning block that says something.

    >>> good = "<reasoning>9 + 9 = 18</reasoning><answer>$18.00</answer>"
    >>> correctness([good, "<answer>18</answer>", good], answer=["#### 18", "18", "19"])
    [1.0, 0.0, 0.0]
    """
    replies = zip(completions, answer, strict=True)
    return [float(is_correct(strict_answer(_text(reply)), gold_answer(gold))) for reply, gold in replies]


def integer(completions: list[Completion], **columns) -> list[float]:
    """1 where the value in the ``<answer>`` block is a whole number, however it is written.

    >>> blocks = ("18", "18.00", "4/2", "1/2", "eighteen")
    >>> integer([f"<reasoning>so</reasoning><answer>{block}</answer>" for block in blocks])
    [1.0, 1.0, 1.0, 0.0, 0.0]
    """
    answers = [strict_answer(_text(reply)) for reply in completions]
    return [float(isinstance(number, Fraction) and number.denominator == 1) for number in answers]


def strict_format(completions: list[Completion], **columns) -> list[float]:
    r"""1 where the reply is well formed and its tags stand on lines of their own, as the system prompt shows.

    >>> strict_format(["<reasoning>\nso\n</reasoning>\n<answer>\n18\n</answer>\n",
    ...                "<reasoning>so</reasoning><answer>18</answer>"])
    [1.0, 0.0]
    """
    return [float(parse_reply(_text(reply)).strict) for reply in completions]


def soft_format(completions: list[Completion], **columns) -> list[float]:
    """1 where the reply is well formed: both blocks, in order, with something in them and nothing around them.

    >>> soft_format(["<reasoning>so</reasoning> <answer>18</answer>",
    ...              "Sure! <reasoning>so</reasoning><answer>18</answer>"])
    [1.0, 0.0]
    """
    return [float(parse_reply(_text(reply)).soft) for reply in completions]


def xml_count(completions: list[Completion], **columns) -> list[float]:
    """A quarter for each of the four tags that stands exactly once: a first step for a model that knows no format yet.

    >>> xml_count(["<reasoning>so</reasoning>", "<answer>18</answer><answer>", "18"])
    [0.5, 0.25, 0.0]
    """
    return [parse_reply(_text(reply)).single_tags / len(tags()) for reply in completions]


REWARDS: dict[str, RewardFunction] = {
    function.__name__: function for function in (correctness, integer, strict_format, soft_format, xml_count)
}
# Weights by name. In the original recipe format pays as much as being right: a model that is seldom right learns to
# risk no format, and leaves out its reasoning (docs/rewards.md has a real run). In the other, being right pays five
# times as much as all else together.
RECIPES: dict[str, dict[str, float]] = {
    "sums": {"correctness": 4.0, "soft_format": 0.5, "xml_count": 0.25},
    "original": {"correctness": 2.0, "integer": 0.5, "strict_format": 0.5, "soft_format": 0.5, "xml_count": 0.5},
}
DEFAULT_RECIPE = "sums"
_WEIGHTS = RECIPES["original"] | RECIPES[DEFAULT_RECIPE]  # of functions that are named without one


# What the recipes of others call a function that pays for the same.
_ELSEWHERE = {"accuracy": "correctness", "format": "soft_format", "tag_count": "xml_count"}


def choose_rewards(wanted: str) -> tuple[list[Reward], list[float]]:
    """The functions and weights that ``--rewards`` names: one of ``RECIPES``, or ``NAME[:WEIGHT]`` of this file and
    ``FILE.py:NAME[:WEIGHT]`` of a user's own, separated by commas. Each is checked at every call: see
    ``kit.task.user_rewards.Reward``.

    Raises:
        UserError: with every name that is unknown, every weight that is no number, and every function that no trainer
            could call.
    """
    rewards: list[Reward] = []
    weights: list[float] = []
    problems: list[str] = []
    for part in _with_recipes(wanted):
        try:
            reward, weight = _choose_one(*(text.strip() for text in at_home(part).split(":")))
        except UserError as error:
            problems += error.problems
            continue
        rewards.append(reward)
        weights.append(weight)
    of_one_name = Counter(reward.__name__ for reward in rewards)
    for reward in rewards:
        if reward.file and of_one_name[reward.__name__] > 1:  # the kit has one of that name, or another file
            reward.__name__ = f"{Path(reward.file).stem}.{reward.__name__}"
    names = Counter(reward.__name__ for reward in rewards)
    problems += [f"--rewards names {name!r} twice: name each function once" for name in names if names[name] > 1]
    if problems:
        raise UserError(*problems)
    return rewards, weights


def _with_recipes(wanted: str) -> list[str]:
    """What ``--rewards`` names one by one, a recipe by its parts."""
    parts = [part.strip() for part in wanted.split(",") if part.strip()]
    each = [[f"{name}:{weight}" for name, weight in RECIPES.get(part, {}).items()] or [part] for part in parts]
    return [name for names in each for name in names] or [wanted]


def _choose_one(name: str, *rest: str) -> tuple[Reward, float]:
    if name in RECIPES:
        raise UserError(
            f"--rewards: {name} is a whole recipe, whose parts have weights of their own: leave out the weight, or "
            "write " + ",".join(f"{part}:{weight:g}" for part, weight in RECIPES[name].items())
        )
    if name.endswith(".py"):
        if not rest:
            raise UserError(f"--rewards: {name} is a file, name the function in it as {name}:FUNCTION")
        reward, default, rest = load_reward(name, rest[0]), 1.0, rest[1:]
    elif name in REWARDS:
        reward, default = Reward(REWARDS[name], name, maximum=1.0), _WEIGHTS[name]
        if name == "integer" and not isinstance(answer_kind(), Number):
            raise UserError(
                "--rewards: integer pays for whole numbers, and the answers of this task are none: leave it out"
            )
    else:
        same = f" (the kit's own is {_ELSEWHERE[name]})" if name in _ELSEWHERE else ""
        raise UserError(
            f"--rewards: there is no {name!r}{same}, choose from {', '.join(REWARDS)}, name FILE.py:FUNCTION, or take "
            f"a whole recipe, {' or '.join(RECIPES)}"
        )
    try:
        (weight,) = map(float, rest) if rest else [default]
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UserError(f"--rewards: the weight {':'.join(rest)!r} of {name} is no number, write NAME:2")
    return reward, weight


def total(reply: Completion, answer: str, wanted: str = DEFAULT_RECIPE) -> float:
    r"""The weighted sum of what ``--rewards`` would name, for one reply.

    >>> total("<reasoning>\n9 + 9 = 18\n</reasoning>\n<answer>\n18\n</answer>", "18")
    4.75
    >>> total("18", "18")
    0.0
    """
    return sum(
        weight * (_paid(reward, reply, answer) or 0.0) for reward, weight in zip(*choose_rewards(wanted), strict=True)
    )


def _paid(reward: Reward, reply: Completion, answer: str, columns: dict[str, Any] | None = None) -> float | None:
    """As a trainer asks, with what is there of the data's columns, and nowhere to log to."""
    said = [{"role": "assistant", "content": reply}] if isinstance(reply, str) else reply
    return reward(completions=[said], log_extra=_log_nothing, log_metric=_log_nothing, **_arguments(answer, columns))[0]


def _arguments(answer: str, columns: dict[str, Any] | None) -> dict[str, Any]:
    """What a trainer makes of a row."""
    row = {"solution": answer} | (columns or {}) | {"answer": answer}
    if isinstance(question := row.get("question"), str):
        row["prompts"] = build_prompt(question)
    return {name: [value] for name, value in row.items()}


def _log_nothing(*_args: object) -> None:
    pass


def _text(completion: Completion) -> str:
    """The text of a completion, which TRL passes as a string or as the messages of a conversation."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def explain(reply: str, answer: str, wanted: str = DEFAULT_RECIPE, columns: dict[str, Any] | None = None) -> str:
    """What each reward saw in ``reply``, what it paid and why, and the total: a table in plain text.

    Args:
        reply: a whole reply.
        answer: the right one, as a row's ``gold`` has it.
        wanted: as ``--rewards`` takes them.
        columns: of the data, such as the question, for functions of a user's own.
    """
    lines = []
    rewards, weights = choose_rewards(wanted)
    earned = most = 0.0
    for reward, weight in zip(rewards, weights, strict=True):
        known = {"completions", "log_extra", "log_metric", *_arguments(answer, columns)}
        if lacking := sorted(set(reward.required()) - known):
            hidden = {"completion_ids", "trainer_state"} & set(lacking)
            where = "only a training has" if hidden else "a .jsonl can give: each line its question and columns"
            lines.append(f"{reward.__name__:<14}    ? x {weight:<6g}wants {', '.join(lacking)}, which {where}")
            continue
        value = _paid(reward, reply, answer, columns)
        if value is None:
            lines.append(
                f"{reward.__name__:<14}   -- x {weight:<6g}None: it cannot judge this reply, which is left out"
            )
            continue
        earned += weight * value
        most += weight
        why = f"{reward.__name__} of {reward.file}" if reward.file else reason(reward.__name__, reply, answer)
        lines.append(f"{reward.__name__:<14}{value:5.2f} x {weight:<6g}{why}")
    return "\n".join([*lines, f"{'total':<14}{earned:5.2f} of {most:g}"])


def read_replies(source: str, answer: str | None) -> list[tuple[str, str, dict[str, Any]]]:
    """The replies in a text file, a JSONL file (``reply`` and ``gold`` or ``answer`` in each line), or ``-`` for
    standard input, each with its right answer and what else its line holds. A reply may be a conversation, of which
    the last message counts.

    Raises:
        UserError: the file cannot be read, a line does not parse, or a right answer is missing or no number.
    """
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--explain {source} cannot be read ({error}): name a text file, a .jsonl file, or -") from None
    if not source.endswith(".jsonl"):
        return [(text, _gold(answer), {})]
    lines = enumerate(text.split("\n"), 1)  # a text may hold other line ends, such as U+2028
    return [_read_line(line, answer, f"--explain {source}, line {number}") for number, line in lines if line.strip()]


def _read_line(line: str, answer: str | None, place: str) -> tuple[str, str, dict[str, Any]]:
    try:
        row = json.loads(line)
        reply = row["reply"]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{place}: each line must be a JSON object with a reply ({error!r})") from None
    if isinstance(reply, list) and reply and isinstance(reply[-1], dict):
        reply = reply[-1].get("content")
    if not isinstance(reply, str):
        raise UserError(f"{place}: the reply is {json.dumps(reply)}, no text: give a text, or a list of messages")
    golds = (value for value in (answer, row.get("gold"), row.get("answer")) if value is not None)
    columns = {name: value for name, value in row.items() if name not in ("reply", "completions", "prompts")}
    return reply, _gold(next(golds, None), f"{place}: "), columns


def _gold(value: object, place: str = "") -> str:
    try:
        if value is None:
            raise ValueError("none is given")
        kind = answer_kind()
        return kind.gold_text(answer_text(value, "answer", "--answer", kind.takes_values))
    except ValueError as error:
        is_number = isinstance(answer_kind(), Number)
        must, such = ("be a number", " 18") if is_number else ("be one of the task's", "")
        raise UserError(f"{place}the right answer must {must} ({error}): give it with --answer{such}") from None


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--explain", required=True, metavar="FILE", help="a reply as text, a JSONL of replies, or -")
    parser.add_argument("--answer", metavar="N", help="the right answer, as the data would hold it")
    parser.add_argument("--task", default=DEFAULT, metavar="NAME|FILE", help="what is right (default: %(default)s)")
    parser.add_argument("--decimal-mark", choices=DECIMAL_MARKS, default="point",
                        help="of replies and answers (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--rewards", "--recipe", metavar="NAME,…", help="as train_lora.py takes them (default: the task's)"
    )
    args = parser.parse()
    use_decimal_mark(args.decimal_mark)
    task = take_task(args.task)
    replies = read_replies(args.explain, args.answer)
    wanted = args.rewards or task.rewards
    print("\n\n".join(explain(reply, answer, wanted, columns) for reply, answer, columns in replies))


if __name__ == "__main__":
    sys.modules["rewards"] = sys.modules["__main__"]  # what a user's own file imports from here, as in training
    run_script(main)
