"""The seam: whatever writes completions takes conversations and a ``Sampling``, and yields the completions.

A conversation is put into the engine's own chat template, as people who use the model get it. ``Sampling`` is all that
shapes a reply, in every engine: what a model folder's generation settings ask for counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from kit.chat_templates import UNTHINKING

Conversation = list[dict[str, str]]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn.

    Args:
        max_tokens: where it is cut off.
        temperature: 0 is greedy. No top-k, no top-p, no penalty, at any temperature.
        seed: the same prompts, seed and engine give the same replies.
        logprobs: whether a completion says its token ids and their log-probabilities.
    """

    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    logprobs: bool = False


@dataclass(frozen=True)
class Completion:
    """One reply.

    Args:
        text: without the token that ended it.
        tokens: how many were written, the one that ended it among them.
        finish_reason: it ended its turn, or it was cut off.
        token_ids: of ``text``, where log-probabilities were asked for; engines differ in whether the last one, which
            ends the turn, is among them.
        logprobs: natural, of each of ``token_ids``, as the model gives them at temperature 1.
    """

    text: str
    tokens: int
    finish_reason: FinishReason
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"


def rendered_prompt(tokenizer: Any, messages: Conversation) -> str:
    """The prompt's text; a last message of the assistant's is the beginning of its reply, which the completion goes on.

    Args:
        tokenizer: transformers', with a chat template.
        messages: the conversation.
    """
    *before, last = messages
    begun = last["role"] == "assistant"
    asked = before if begun else messages
    text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False, **UNTHINKING)
    return text + (last["content"] if begun else "")


Finished = list[tuple[int, Completion]]  # (place of the conversation, its completion)


class Engine(Protocol):
    """Something that answers."""

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[Finished]:
        """A completion for each conversation, those that are finished together in one list, as soon as they are."""
