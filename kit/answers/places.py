"""Where a reply out of form says that its answer is, in order of trust."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from kit.answers.kind import Answer
from kit.numbers.latex import boxes
from kit.prompts import form, lone_answer_block

_MARKS = "*_`\"'“”‘’«»$"  # markup and quotes around an answer
_ENDS = ".,;:!"
_AFTER_A_BOX = re.compile(rf"(?:\\[)\]]|[\s{re.escape(_MARKS + _ENDS)}])+\Z")  # "\)" and "\]" end a formula
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")


def places(text: str, read: Callable[[str], Answer | None]) -> Iterator[str]:
    """What stands in the answer block, where there is just one, and in the box, there or in the whole text."""
    block = lone_answer_block(text)
    if block:
        yield block
    if found := box(block or text, read):
        yield found


def in_gold(text: str, box_ends: bool = False) -> str:
    r"""The part of a data set's answer that says what is right: what follows GSM8K's ``####``, else what stands in the
    answer block, in the last box of a written solution, else all of it. With ``box_ends`` a box counts where it is the
    end: elsewhere it is a part of a text.

    >>> [in_gold(text) for text in ("9\n#### 18", r"so \boxed{6}, no, \boxed{7}", "<answer>Paris</answer>", "18")]
    [' 18', '7', 'Paris', '18']
    """
    _, hashes, wanted = text.rpartition("####")
    part = wanted if hashes else lone_answer_block(text) or text
    while found := boxes(part):
        if box_ends and not _AFTER_A_BOX.sub("", part).endswith(f"{{{found[-1]}}}"):
            break
        part = found[-1]
    return part


def box(text: str, read: Callable[[str], Answer | None]) -> str | None:
    """What stands in the ``\\boxed{}``, where there is just one, or where ``read`` finds the same in all."""
    found = boxes(text)
    return found[-1] if found and len({read(inside) for inside in found}) == 1 else None


def last_line(text: str) -> str:
    """The last line that says something, a tag ending it as a line break does; of "the answer is X", X."""
    lines = [line for line in re.sub(form().any_tag.pattern, "\n", text, flags=re.I).splitlines() if bare(line)]
    return re.split(r"(?:answer|respuesta)\W*?(?:\b(?:is|es)\b\s*:?|[:=])", lines[-1], flags=re.I)[-1] if lines else ""


def bare(text: str, marks: str = _MARKS, ends: str = _ENDS) -> str:
    """A text without the markup, the quotes and the full stop around it.

    >>> bare(' **"Paris."** ')
    'Paris'
    """
    before = None
    while text != before:
        before, text = text, text.strip().strip(marks).rstrip(ends)
        if named := _LATEX_TEXT.fullmatch(text):
            text = named[1]
    return text
