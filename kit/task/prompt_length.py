"""How many tokens has the longest prompt? Asked before the model is loaded, by engines that set room aside for it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from kit.chat_templates import fitted, rendered
from kit.prompts import build_prompt
from kit.storage.hub import local_folder
from kit.storage.model_files import template_in

_TEMPLATE_TOKENS = 16
# Of what a text is made of, how many tokens a byte has at most: English has a quarter, a digit is a token of its own.
_TOKENS_A_BYTE = ((re.compile(rb"[A-Za-z]|[ ](?![0-9])"), 1 / 3), (re.compile(rb"[\x80-\xff]"), 2 / 3))
_MEASURED = 8  # of the longest questions as reckoned, one is the longest in tokens


def reckoned_prompt_length(questions: Sequence[str], system_prompt: str) -> int:
    """The length of the longest prompt, without a tokenizer: no less than it is."""
    return _TEMPLATE_TOKENS + _reckoned(system_prompt) + max(map(_reckoned, questions))


def _reckoned(text: str) -> int:
    content = text.encode(errors="replace")
    found = [(len(kind.findall(content)), tokens) for kind, tokens in _TOKENS_A_BYTE]
    others = len(content) - sum(count for count, _ in found)
    return others + math.ceil(sum(count * tokens for count, tokens in found))


def longest_prompt(model: str, questions: Sequence[str], system_prompt: str) -> int:
    """The length of the longest prompt by the model's own tokenizer and template; reckoned where these are not here."""
    from tokenizers import Tokenizer

    try:
        folder = local_folder(model)
        template, tokenizer = template_in(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
        longest = sorted(questions, key=_reckoned, reverse=True)[:_MEASURED]
        texts = [rendered(template, fitted(build_prompt(question, system_prompt), template)) for question in longest]
    except Exception:  # not here, a tokenizer of another kind, a template that is refused elsewhere
        return reckoned_prompt_length(questions, system_prompt)
    return max(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
