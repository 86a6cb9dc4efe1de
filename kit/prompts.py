"""PROMPT: what the model is told and how its reply is taken apart.

Tags, system prompt and parser stand in one file so that they cannot disagree: the reward functions, the
evaluation, the demo's warm start and the exported Modelfile all import them from here.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

REASONING_OPEN, REASONING_CLOSE = "<reasoning>", "</reasoning>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"
TAGS = (REASONING_OPEN, REASONING_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
_ANY_TAG = re.compile("|".join(TAGS))
REASONING_LEAST = 2  # letters or digits: "9+9" is work, "." or "x" is none
_VISIBLE = re.compile("[^\\W_\u115f\u1160\u3164\uffa0]")  # the four are letters that take room and show nothing
_MARKUP = re.compile(r"<!--(?:(?!-->).)*+(?:-->)?|<[/A-Za-z][^<>]*+>|&#?\w++;|\\[A-Za-z]++", re.DOTALL)

SYSTEM_PROMPT = f"""\
Respond in the following format:
{REASONING_OPEN}
...
{REASONING_CLOSE}
{ANSWER_OPEN}
...
{ANSWER_CLOSE}"""


class Reply(NamedTuple):
    """A completion taken apart.

    ``reasoning`` and ``answer`` are the texts between the tags, stripped, or ``None`` unless each of the four
    tags stands exactly once and in order. ``reasoned`` says whether the reasoning says something. ``soft`` and
    ``strict`` say how well formed the whole reply is, and ``single_tags`` counts the tags that stand exactly once
    (0 to 4; 0 where one tag is written into another).
    """

    text: str
    reasoning: str | None
    answer: str | None
    reasoned: bool
    soft: bool
    strict: bool
    single_tags: int


def build_prompt(question: str, system_prompt: str = SYSTEM_PROMPT) -> list[dict[str, str]]:
    """The chat messages for one question, in the form that TRL, transformers, vLLM and llama-server share."""
    return [{"role": "system", "content": system_prompt}, {"role": "user", "content": question}]


def format_reply(reasoning: str, answer: str) -> str:
    """A strictly formed reply, as the system prompt shows it.

    >>> print(format_reply("9 + 9 = 18", "18"))
    <reasoning>
    9 + 9 = 18
    </reasoning>
    <answer>
    18
    </answer>
    """
    return f"{REASONING_OPEN}\n{reasoning}\n{REASONING_CLOSE}\n{ANSWER_OPEN}\n{answer}\n{ANSWER_CLOSE}"


def parse_reply(text: str) -> Reply:
    """Take a completion apart, in time linear in its length (nothing here backtracks).

    Soft form: the four tags, each exactly once, spelled exactly so, in order, something said inside both blocks (see
    ``says_something``) and nothing but white space before, between and after them. Strict form also has the line
    breaks of the system prompt, with or without a final one.

    >>> parse_reply(format_reply("9 + 9 = 18", "18")).strict
    True
    >>> loose = parse_reply("Sure! <reasoning>9 + 9</reasoning><answer>18</answer>")
    >>> loose.soft, loose.answer
    (False, '18')
    >>> parse_reply("<answer>18</answer>").answer is None
    True
    """
    tags = _ANY_TAG.findall(text)
    single_tags = 0 if _has_nested_tags(text, len(tags)) else sum(tags.count(tag) == 1 for tag in TAGS)
    if single_tags < len(TAGS) or tuple(tags) != TAGS:
        return Reply(text, None, None, reasoned=False, soft=False, strict=False, single_tags=single_tags)
    starts = [text.find(tag) for tag in TAGS]
    ends = [start + len(tag) for start, tag in zip(starts, TAGS, strict=True)]
    before, between, after = text[: starts[0]], text[ends[1] : starts[2]], text[ends[3] :]
    reasoning, answer = text[ends[0] : starts[1]], text[ends[2] : starts[3]]
    outside_is_blank = not (before.strip() or between.strip() or after.strip())
    reasoned = says_something(reasoning, REASONING_LEAST)
    soft = outside_is_blank and reasoned and says_something(answer)
    on_own_lines = all(block[:1] == block[-1:] == "\n" for block in (reasoning, answer))
    strict = soft and (before, between) == ("", "\n") and after in ("", "\n") and on_own_lines
    return Reply(text, reasoning.strip(), answer.strip(), reasoned, soft, strict, single_tags)


def says_something(block: str, least: int = 1) -> bool:
    """Are there ``least`` letters or digits in a block, besides comments, markup and characters that nobody sees?

    The one definition of an empty block: for correctness, for both formats and for the alarm "empty reasoning". The
    prompt's own ``...`` says nothing.

    >>> [says_something(block, REASONING_LEAST) for block in ("9+9", "...", "<!-- I add -->", "&nbsp;", "\u200b")]
    [True, False, False, False, False]
    """
    if any(mark in block for mark in "<&\\"):
        block = _MARKUP.sub(" ", block)
    return next(islice(_VISIBLE.finditer(block), least - 1, None), None) is not None


def _has_nested_tags(text: str, tags_found: int) -> bool:
    """Is a tag written into another, as in ``<rea<answer>soning>``?

    Such a text reads differently with and without the inner tag, so a model could hide a second tag or fill an
    empty block with the remains of one. None of its tags counts.
    """
    if text.count("<") == tags_found:  # the outer tag would have a "<" of its own
        return False
    return bool(_ANY_TAG.search(_ANY_TAG.sub("", text)))
