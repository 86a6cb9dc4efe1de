"""What vLLM takes and gives, on a card as on the processor: prompts as tokens, what ends a reply, completions."""

from __future__ import annotations

from typing import Any

from kit.generation.engine import Completion, Conversation, FinishReason, rendered_prompt
from kit.storage.generation_settings import ends_of_turn
from kit.storage.hub import folder_here

SCHEDULED_TOGETHER = 8  # batches: vLLM schedules inside a call, so the more prompts a call has, the fuller the machine


def as_tokens(tokenizer: Any, messages: Conversation) -> dict[str, list[int]]:
    """The prompt as vLLM takes it, tokenized once: given a text, it would put a beginning before the template's own."""
    return {"prompt_token_ids": tokenizer(rendered_prompt(tokenizer, messages), add_special_tokens=False)["input_ids"]}


def ends_of_folder(model: str) -> list[int]:
    """What the model's own settings end a reply with, besides the tokenizer's; vLLM has fetched the folder by now."""
    folder = folder_here(model)
    return ends_of_turn(folder) if folder else []


def completion(reply: Any) -> Completion:
    """What vLLM says of a reply, in the kit's words."""
    reason: FinishReason = "length" if reply.finish_reason == "length" else "stop"
    ids = tuple(reply.token_ids)
    if not reply.logprobs:
        return Completion(reply.text, len(ids), reason)
    logprobs = tuple(of_place[token].logprob for token, of_place in zip(ids, reply.logprobs, strict=True))
    return Completion(reply.text, len(ids), reason, ids, logprobs)
