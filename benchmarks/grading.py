"""How fast are the five rewards, next to math-verify on the same replies, and where do the verdicts differ?

    python -m benchmarks.grading        (after `make bench-setup`; half a minute)

Also counts where ``flexible_answer`` differs from lm-evaluation-harness's ``flexible-extract``, restated here from its
gsm8k.yaml, and what one-megabyte hostile replies cost.
"""

from __future__ import annotations

import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable

from benchmarks.record import write_result
from kit.grading import flexible_answer, gold_answer, is_correct, strict_answer
from kit.prompts import format_reply, tags
from rewards import REWARDS

REPLIES = 10_000
LENGTH = 500
SAMPLE = 500  # replies a round for math-verify, which is slower
ROUNDS = 5
GOLD = 1218
HOSTILE = [*tags(), "1 ", "1,1 ", "9", ",", " ", ".", "-", "$", "1/0 ", "<", "½", "<answer>1</answer>"]

ANSWERS = {  # how the answer is written → is it right?
    "1218": True, "1,218": True, "$1,218.00": True, "1218 apples": True, "\\boxed{1218}": True, "**1218**": True,
    "1218.": True, "2436/2": True, "1219": False, "12,18": False, "1218 or 1219": False, "": False, "many": False,
}  # fmt: skip


def make_replies(seed: int) -> list[tuple[str, str]]:
    """Different replies of ``LENGTH`` characters, each with the way its answer is written."""
    rng = random.Random(seed)
    replies = []
    while len(replies) < REPLIES:
        written = rng.choice(list(ANSWERS))
        steps = ""
        while len(steps) < LENGTH:
            a, b = rng.randint(2, 999), rng.randint(2, 99)
            steps += rng.choice([f"{a} + {b} = {a + b}. ", f"So ${a * b:,} are left. ", "Then she buys more. "])
        shape = rng.random()
        if shape < 0.8:
            reply = format_reply(steps[: LENGTH - 50 - len(written)], written)
        elif shape < 0.9:
            reply = f"{steps[: LENGTH - 40]} The answer is {written}"
        else:
            reply = f"<reasoning>{steps[: LENGTH - 70]}</reasoning><answer>{written}"
        replies.append((reply.ljust(LENGTH)[:LENGTH], written))
    assert len({reply for reply, _ in replies}) == REPLIES
    return replies


def lm_eval_flexible(reply: str) -> str:
    """lm-evaluation-harness's gsm8k flexible-extract: the last match, compared as text without ``,``, ``$``, final
    ``.``."""
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", reply)
    last = next((group for group in found[-1] if group), "[invalid]") if found else "[invalid]"
    return re.sub(r"\.$", "", re.sub(r"[,$]", "", last))


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call, which other programs disturb less than wall time."""
    started = time.process_time()
    work()
    return time.process_time() - started


def hostile_seconds(text: str) -> float:
    """What the slower of the two gradings of one text costs."""
    return max(seconds(lambda: strict_answer(text)), seconds(lambda: flexible_answer(text)))


def main() -> None:
    from math_verify import parse, verify

    replies = make_replies(seed=1)
    texts = [reply for reply, _ in replies]
    golds = [str(GOLD)] * REPLIES
    gold_parsed = parse(str(GOLD))

    def kit() -> None:
        for function in REWARDS.values():
            function(completions=texts, answer=golds)

    def math_verify() -> list[bool]:
        return [verify(gold_parsed, parse(text)) for text in texts[:SAMPLE]]

    kit_s, peer_s, ratios = [], [], []
    for _ in range(ROUNDS):  # in turn: A B A B
        kit_s.append(seconds(kit))
        peer_s.append(seconds(math_verify) * REPLIES / SAMPLE)
        ratios.append(peer_s[-1] / kit_s[-1])
        print(
            f"five rewards {kit_s[-1]:.2f} s, math-verify {peer_s[-1]:.1f} s for {REPLIES} replies: {ratios[-1]:.0f} x"
        )

    gold = gold_answer(str(GOLD))
    disagreements = Counter(
        f"{written!r}: kit {ours}, math-verify {theirs}"
        for (reply, written), theirs in zip(replies, math_verify(), strict=False)
        if (ours := is_correct(strict_answer(reply), gold)) != theirs
    )
    flexible = Counter(
        f"{written!r}: kit {ours}, flexible-extract {theirs}"
        for reply, written in replies
        if (ours := is_correct(flexible_answer(reply), gold)) != (theirs := lm_eval_flexible(reply) == str(GOLD))
    )
    hostile = {piece: hostile_seconds(piece * (1_000_000 // len(piece))) for piece in HOSTILE}
    slowest = max(hostile, key=lambda piece: hostile[piece])
    print(
        f"of {SAMPLE} replies, kit and math-verify disagree on {disagreements.total()}: {disagreements.most_common(6)}"
    )
    print(
        f"of {REPLIES}, flexible_answer and flexible-extract disagree on {flexible.total()}: {flexible.most_common(6)}"
    )
    print(f"slowest hostile megabyte: {slowest!r} repeated, {hostile[slowest]:.3f} s")
    figures = {
        "replies": REPLIES,
        "length": LENGTH,
        "five_rewards_s": kit_s,
        "math_verify_s_scaled": peer_s,
        "ratio_median": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "math_verify_sample": SAMPLE,
        "math_verify_disagreements": dict(disagreements),
        "flexible_extract_disagreements": dict(flexible),
        "hostile_megabyte_s": hostile,
    }
    print(write_result("grading", figures, packages=("math-verify",)))


if __name__ == "__main__":
    main()
