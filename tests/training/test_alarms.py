"""Each alarm is raised by a scripted run that goes wrong so, once in 20 steps; a healthy run raises none."""

import itertools
import random

import pytest

from kit.storage.run_folder import RunFolder
from kit.training.alarms import RULES, SILENT_STEPS, AlarmMonitor, Step

WELL_FORMED = "<reasoning>\n{a} + {b} = {c}\n</reasoning>\n<answer>\n{c}\n</answer>"


def healthy(number, noise) -> Step:
    """A step of a run that learns: format first, then correctness; replies about different sums."""
    share = min(1.0, 0.2 + number / 40)
    metrics = {
        "step": number, "reward": 4 * share, "groups_without_spread": noise.choice([0.0, 0.25, 0.5]),
        "truncated_rate": noise.uniform(0, 0.2), "completion_length": 150 + noise.uniform(-40, 60),
        "format_rate": share, "correct_rate": 0.1 + 0.6 * number / 120, "entropy": 0.4 + noise.uniform(-0.1, 0.1),
        "grad_norm": noise.uniform(0.05, 0.5), "adapter_norm": number / 10,
        "rewards": {"correctness": 0.5, "format": 0.0 if number < 9 else 1.0}, "rewards_std": {"correctness": 0.5},
    }  # fmt: skip
    sums = [(noise.randrange(90), noise.randrange(90)) for _ in range(8)]
    questions = [f"How much is {a} and {b}?" for a, b in sums]
    replies = [WELL_FORMED.format(a=a, b=b, c=a + b) for a, b in sums]
    return Step(metrics, questions, replies, {"correctness": [0.0, 1.0] * 4})


def nothing(*_):
    """What a healthy run has wrong."""


def run(steps, wrong=nothing, earlier=()):
    """(step, name) of every alarm of a scripted run; ``wrong`` spoils each step."""
    noise, watcher = random.Random(1), AlarmMonitor({"correctness": 1.0}, earlier)
    raised = []
    for number in range(1, steps + 1):
        step = healthy(number, noise)
        wrong(step, number)
        raised += [(number, alarm.name) for alarm in watcher.check(step)]
    return raised


def set_to(**values):
    return lambda step, _: step.metrics.update(values)


def after(first, **values):
    return lambda step, number: step.metrics.update(values) if number >= first else None


def repeat_itself(step, _):
    step.replies = ["As a careful helper of children I will now think: " + reply for reply in step.replies]


def go_round_in_circles(step, number):
    """Of a real run, 36 % at its worst; here in one reply of eight, from a step on."""
    if number >= 40:
        again = f"\nSo the total number of journal pages written is {number} pages." * 5
        step.replies = [step.replies[0] + again, *step.replies[1:]]


def say_nothing(step, _):
    step.replies = ["<reasoning>\n.\n</reasoning>\n<answer>\n5\n</answer>"] * 8


def pay_too_much(step, number):
    if number == 30:
        step.rewards = {"correctness": [0.0, 1.5]}


STREAMS = {
    "no spread": set_to(groups_without_spread=0.75),
    "cut off": set_to(truncated_rate=0.8),
    "length collapse": after(40, completion_length=20),
    "length explosion": after(40, completion_length=700),
    "correctness stands still": set_to(format_rate=0.97, correct_rate=0.3),
    "empty reasoning": say_nothing,
    "one phrase": repeat_itself,
    "loops": go_round_in_circles,
    "entropy collapse": after(40, entropy=0.01),
    "gradient": after(30, grad_norm=None),
    "unchanged": set_to(adapter_norm=0.0),
    "same reward": set_to(rewards={"mine": 0.0, "kit": 0.5}, rewards_std={"mine": 0.0, "kit": 0.1}),
    "vLLM differs": set_to(sampling_ratio=0.6),
    "over the maximum": pay_too_much,
}


@pytest.mark.parametrize(("name", "wrong"), STREAMS.items(), ids=STREAMS)
def test_a_run_that_goes_wrong_is_told_so(name, wrong):
    raised = run(120, wrong)
    times = [number for number, alarm in raised if alarm == name]
    assert times
    assert {alarm for _, alarm in raised} == {name}
    assert all(later - earlier >= SILENT_STEPS for earlier, later in itertools.pairwise(times))


def test_every_rule_has_a_stream():
    assert len(STREAMS) == len(RULES) + 2  # the rule for length has two, and one looks at a single step


def test_steps_that_float16_skips_at_its_beginning_are_no_alarm_but_later_ones_are():
    def skip(*numbers):
        return lambda step, number: step.metrics.update(skipped=True) if number in numbers else None

    assert run(60, skip(1)) == []
    assert run(60, skip(30)) == [(30, "gradient")]
    assert run(60, skip(30, 31, 33)) == [(30, "gradient")]


def test_a_healthy_run_is_left_alone():
    assert run(250) == []


def test_a_reward_that_always_pays_the_same_is_named():
    """Also across a resume; one that abstains from all is as useless as one that pays nothing."""
    earlier = [{"step": n, "rewards": {"mine": 0.0, "mute": None, "new": 0.0}, "rewards_std": {"mine": 0.0, "new": 0.0}}
               for n in range(1, 10)]  # fmt: skip
    (alarm,) = AlarmMonitor({}, earlier).check(Step(earlier[0] | {"step": 10, "rewards_std": {"new": 0.1}}))
    assert "in 10 steps: mine 0, mute no verdict." in alarm.means


def test_what_was_said_before_a_resume_is_not_said_again():
    before = [{"step": n, "groups_without_spread": 0.9} for n in range(1, 11)]
    before[-1]["alarms"] = [{"name": "no spread", "says": ""}]
    watcher = AlarmMonitor({}, before)
    alarms = {
        n: [a.name for a in watcher.check(Step({"step": n, "groups_without_spread": 0.9}))] for n in range(11, 32)
    }
    assert [n for n, names in alarms.items() if names] == [30]


def test_a_batch_that_is_learned_from_again_counts_once():
    """Five steps would be one batch and a bit; groups without spread in one batch are no news."""
    watcher = AlarmMonitor({})
    for batch, share in enumerate([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]):
        for update in range(4):
            step = {"step": 4 * batch + update + 1, "groups_without_spread": share} | (
                {"again": True} if update else {}
            )
            names = [alarm.name for alarm in watcher.check(Step(step))]
            assert names == (["no spread"] if (batch, update) == (8, 0) else []), step


def test_the_real_run_of_the_tests_raises_none(chain):
    rows = RunFolder(chain / "short").steps()
    assert all("alarms" not in row for row in rows)
    assert rows[-1]["adapter_norm"] > 0


def test_one_batch_after_a_resume_is_not_judged_for_its_loops():
    earlier = [healthy(number, random.Random(2)).metrics for number in range(1, 60)]
    noise, watcher = random.Random(1), AlarmMonitor({}, earlier)
    found = []
    for number in range(60, 66):
        step = healthy(number, noise)
        go_round_in_circles(step, number)
        found += [(number, alarm.name) for alarm in watcher.check(step)]
    assert found == [(64, "loops")]
