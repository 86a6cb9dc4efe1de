"""A question with its reply in the form that is asked for: shown first, it says more than the system prompt does.

The warm start of a training asks with it, and trains without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

from kit.chat_templates import Messages
from kit.cli.errors import UserError, first_line
from kit.prompts import format_reply, parse_reply


class WorkedExample(NamedTuple):
    """A question and a reply that is in format."""

    question: str
    reply: str


def read_worked_example(file: str) -> WorkedExample:
    """The example of a YAML or JSON file with ``question`` and ``reply``.

    Raises:
        UserError: the file cannot be read, lacks one of the two, or its reply is not in format.
    """
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--worked-example {file} cannot be read ({first_line(error)}): name a YAML file") from None
    said = content if isinstance(content, dict) else {}
    texts = [text.strip() for name in WorkedExample._fields if isinstance(text := said.get(name), str)]
    if len(texts) < len(WorkedExample._fields) or not all(texts):
        raise UserError(f"--worked-example {file} must hold two texts, `question:` and `reply:`")
    example = WorkedExample(*texts)
    if not parse_reply(example.reply).soft:
        raise UserError(
            f"--worked-example {file}: its reply is not in format; write it as the system prompt shows it, such as\n"
            f"{format_reply('3 + 4 = 7', '7')}"
        )
    return example


def with_example(prompt: Messages, example: WorkedExample) -> Messages:
    """The chat messages of a question, with the example before it as a turn that went well.

    >>> talk = with_example([{"role": "user", "content": "2 + 2?"}], WorkedExample("1 + 1?", "2"))
    >>> [turn["content"] for turn in talk]
    ['1 + 1?', '2', '2 + 2?']
    """
    *before, asked = prompt
    shown = [{"role": "user", "content": example.question}, {"role": "assistant", "content": example.reply}]
    return [*before, *shown, asked]
