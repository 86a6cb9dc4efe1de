"""How many tokens has the longest prompt? Asked before the model is loaded, by engines that set room aside for it."""

from __future__ import annotations

from collections.abc import Sequence

from kit.chat_templates import fitted, rendered, template_in
from kit.prompts import build_prompt
from kit.storage.hub import local_folder

_BYTES_A_TOKEN, _TEMPLATE_TOKENS = 3, 16  # English has four bytes a token
_MEASURED = 8  # of the longest questions in bytes, one is the longest in tokens


def reckoned_prompt_length(questions: Sequence[str], system_prompt: str) -> int:
    """The length of the longest prompt, without a tokenizer: no less than it is."""
    longest = max(len((system_prompt + question).encode()) for question in questions)
    return longest // _BYTES_A_TOKEN + _TEMPLATE_TOKENS


def longest_prompt(model: str, questions: Sequence[str], system_prompt: str) -> int:
    """The length of the longest prompt by the model's own tokenizer and template; reckoned where these are not here."""
    from tokenizers import Tokenizer

    try:
        folder = local_folder(model)
        template, tokenizer = template_in(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
        longest = sorted(questions, key=lambda question: -len(question.encode()))[:_MEASURED]
        texts = [rendered(template, fitted(build_prompt(question, system_prompt), template)) for question in longest]
    except Exception:  # not here, a tokenizer of another kind, a template that is refused elsewhere
        return reckoned_prompt_length(questions, system_prompt)
    return max(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
