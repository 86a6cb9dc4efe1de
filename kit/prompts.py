"""PROMPT: what the model is told and how its reply is taken apart.

Tags, system prompt and parser stand in one file so that they cannot disagree: the reward functions, the
evaluation, the demo's pretraining and the exported Modelfile all import them from here. A task can have tags and a
system prompt of its own; a script sets them once, before anything is read or asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple

REASONING_LEAST = 2  # letters or digits: "9+9" is work, "." or "x" is none
_VISIBLE = re.compile("[^\\W_\u115f\u1160\u3164\uffa0]")  # the four are letters that take room and show nothing
_MARKUP = re.compile(r"<!--(?:(?!-->).)*+(?:-->)?|<[/A-Za-z][^<>]*+>|&#?\w++;|\\[A-Za-z]++", re.DOTALL)


@dataclass(frozen=True)
class Form:
    """What a reply is to look like.

    Args:
        reasoning: the name of the tag around the reasoning.
        answer: the name of the tag around the answer.
        said: the system prompt; empty is one that shows the four tags and says no more.
    """

    reasoning: str = "reasoning"
    answer: str = "answer"
    said: str = ""

    @cached_property
    def tags(self) -> tuple[str, str, str, str]:
        """The four tags in their order."""
        return f"<{self.reasoning}>", f"</{self.reasoning}>", f"<{self.answer}>", f"</{self.answer}>"

    @cached_property
    def any_tag(self) -> re.Pattern[str]:
        """Any of the four."""
        return re.compile("|".join(map(re.escape, self.tags)))

    @property
    def system_prompt(self) -> str:
        """What the model is told first."""
        return self.said or f"Respond in the following format:\n{format_reply('...', '...', self)}"


_form = Form()


def use_form(form: Form) -> None:
    """Have all replies of this program asked for and read in this form."""
    global _form
    _form = form


def form() -> Form:
    """The form in use."""
    return _form


def tags() -> tuple[str, str, str, str]:
    """The four tags in use, in their order."""
    return _form.tags


def default_system_prompt() -> str:
    """What the model is told first where nothing else is said."""
    return _form.system_prompt


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


def build_prompt(question: str, system_prompt: str | None = None) -> list[dict[str, str]]:
    """The chat messages for one question, in the form that TRL, transformers, vLLM and llama-server share."""
    told = default_system_prompt() if system_prompt is None else system_prompt
    return [{"role": "system", "content": told}, {"role": "user", "content": question}]


def format_reply(reasoning: str, answer: str, form: Form | None = None) -> str:
    """A strictly formed reply, as the system prompt shows it.

    >>> print(format_reply("9 + 9 = 18", "18"))
    <reasoning>
    9 + 9 = 18
    </reasoning>
    <answer>
    18
    </answer>
    """
    before, between, then, after = (form or _form).tags
    return f"{before}\n{reasoning}\n{between}\n{then}\n{answer}\n{after}"


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
    wanted = _form.tags
    found = _form.any_tag.findall(text)
    single_tags = 0 if _has_nested_tags(text, len(found)) else sum(found.count(tag) == 1 for tag in wanted)
    if single_tags < len(wanted) or tuple(found) != wanted:
        return Reply(text, None, None, reasoned=False, soft=False, strict=False, single_tags=single_tags)
    starts = [text.find(tag) for tag in wanted]
    ends = [start + len(tag) for start, tag in zip(starts, wanted, strict=True)]
    before, between, after = text[: starts[0]], text[ends[1] : starts[2]], text[ends[3] :]
    reasoning, answer = text[ends[0] : starts[1]], text[ends[2] : starts[3]]
    outside_is_blank = not (before.strip() or between.strip() or after.strip())
    reasoned = says_something(reasoning, REASONING_LEAST)
    soft = outside_is_blank and reasoned and says_something(answer)
    on_own_lines = all(block[:1] == block[-1:] == "\n" for block in (reasoning, answer))
    strict = soft and (before, between) == ("", "\n") and after in ("", "\n") and on_own_lines
    return Reply(text, reasoning.strip(), answer.strip(), reasoned, soft, strict, single_tags)


def lone_answer_block(text: str) -> str | None:
    """What stands in the answer block, where there is just one, whatever else the reply holds."""
    _, _, opened, closed = _form.tags
    if text.count(opened) != 1 or text.count(closed) != 1:
        return None
    return text.partition(opened)[2].partition(closed)[0]


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
    return bool(_form.any_tag.search(_form.any_tag.sub("", text)))
