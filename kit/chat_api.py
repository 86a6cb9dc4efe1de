"""Ask a server by OpenAI's chat API, which all of them speak: llama.cpp's, vLLM's, Ollama's."""

from __future__ import annotations

from typing import Any, NamedTuple

import requests

_TIMEOUT_S = 3600  # of a reply; the last of many that are asked at once waits for all before it


class Answer(NamedTuple):
    """A reply: its text, its length in tokens, whether it was cut off, and where asked for, ``(token id, its natural
    log-probability)`` of each token; ids are llama.cpp's addition to the API."""

    text: str
    tokens: int
    truncated: bool
    logprobs: list[tuple[int, float]]


def answered(session: requests.Session, server: str, request: dict[str, Any]) -> Answer:
    """What a server says to a request.

    Args:
        session: to send it with.
        server: its address, without the API's version.
        request: as https://platform.openai.com/docs/api-reference/chat/create has it.

    Raises:
        requests.RequestException: it refuses, or is gone.
    """
    answer = session.post(f"{server}/v1/chat/completions", json=request, timeout=_TIMEOUT_S)
    answer.raise_for_status()
    body = answer.json()
    choice = body["choices"][0]
    tokens = (choice.get("logprobs") or {}).get("content") or []
    return Answer(
        text=choice["message"]["content"] or "",
        tokens=body["usage"]["completion_tokens"],
        truncated=choice["finish_reason"] == "length",
        logprobs=[(token["id"], token["logprob"]) for token in tokens],
    )
