"""Why a reward paid or did not, in words, for ``python rewards.py --explain``."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from kit.answers.number import Number, other_mark
from kit.answers.own import Said
from kit.grading import answer_kind, gold_answer, is_correct, strict_answer
from kit.prompts import Reply, parse_reply, says_something, tags

Reason = Callable[[Reply, str], str]


def _structure(reply: Reply) -> str:
    """Why there is no answer block to read, or an empty string where there is one."""
    if reply.answer is not None:
        return "" if reply.reasoned else "the reasoning block says nothing"
    counts = {tag: reply.text.count(tag) for tag in tags()}
    wrong = [f"{tag} stands {count} times" for tag, count in counts.items() if count != 1]
    if wrong:
        return ", ".join(wrong).replace("stands 0 times", "is missing")
    return "a tag is written into another" if not reply.single_tags else "the tags stand in the wrong order"


def _no_answer(reply: Reply) -> str:
    kind = answer_kind()
    hint = other_mark(reply.answer or "") if isinstance(kind, Number) else ""
    return f"the answer block {reply.answer!r} does not hold {kind.wanted}{hint}"


def _correctness(reply: Reply, gold: str) -> str:
    if problem := _structure(reply):
        return problem
    answer = strict_answer(reply.text)
    if answer is None:
        return _no_answer(reply)
    right = gold_answer(gold)
    if isinstance(answer, Said):
        return f"is_right of the task says {'yes' if is_correct(answer, right) else 'no'} to {answer.value!r}"
    equal = "equals" if is_correct(answer, right) else "is not"
    return f"the answer block gives {answer}, which {equal} {right}"


def _integer(reply: Reply, _gold: str) -> str:
    if problem := _structure(reply):
        return problem
    answer = strict_answer(reply.text)
    if not isinstance(answer, Fraction):
        return _no_answer(reply)
    return f"{answer} is {'a whole' if answer.denominator == 1 else 'no whole'} number"


def _soft(reply: Reply, _gold: str) -> str:
    if reply.soft:
        return "both blocks, in order, with nothing around them"
    return _structure(reply) or (
        "there is text outside the blocks" if says_something(reply.answer or "") else "the answer block says nothing"
    )


def _strict(reply: Reply, gold: str) -> str:
    if reply.strict:
        return "each tag on a line of its own, as the system prompt shows"
    return "the tags do not stand on lines of their own" if reply.soft else _soft(reply, gold)


def _count(reply: Reply, _gold: str) -> str:
    return f"{reply.single_tags} of {len(tags())} tags stand exactly once"


REASONS: dict[str, Reason] = {
    "correctness": _correctness,
    "integer": _integer,
    "strict_format": _strict,
    "soft_format": _soft,
    "xml_count": _count,
}


def reason(name: str, reply: str, gold: str) -> str:
    """Why the reward ``name`` paid what it paid for ``reply``."""
    return REASONS[name](parse_reply(reply), gold)
