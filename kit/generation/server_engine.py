"""A server writes the completions: any that speaks OpenAI's chat API, such as vLLM's, llama.cpp's or Ollama's.

What outgrows one card is asked of it: ``vllm serve runs/NAME/merged --data-parallel-size 4`` answers on four.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from kit.chat_api import answered
from kit.chat_templates import UNTHINKING
from kit.cli.errors import UserError, first_line
from kit.generation.asked_at_once import asked_at_once
from kit.generation.engine import Completion, Conversation, Finished, Sampling

# A server that is busy is asked again a few times, after a second, two, four; one that says "in an hour" is not obeyed.
_PATIENT = Retry(
    connect=4, read=0, status=4, other=0, status_forcelist=(429, 502, 503), allowed_methods=None, backoff_factor=0.5,
    raise_on_status=False, respect_retry_after_header=False,
)  # fmt: skip
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
# What servers would take from a model's own settings where a request leaves it out, under each one's name for it.
_NO_SETTINGS_OF_ITS_OWN = {
    "top_p": 1.0, "top_k": 0, "min_p": 0.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    "repetition_penalty": 1.0, "repeat_penalty": 1.0,
}  # fmt: skip


def served_model(address: str, wanted: str, path: str) -> str:
    """The name under which a server has the model at ``path``.

    Args:
        address: of the server, such as ``http://localhost:8000``.
        wanted: the name that the user gave; empty takes the only one.
        path: of the artefact that it is to answer for.

    Raises:
        UserError: nobody answers there, it has several models or others, or says that it serves another folder.
    """
    try:
        reply = _session(address).get(f"{base_address(address)}/v1/models", timeout=20)
        reply.raise_for_status()
        models = {model["id"]: model.get("root") for model in reply.json()["data"]}
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--server {address} does not say which models it has ({first_line(error)}): name the address of a running "
            "server with OpenAI's chat API, such as http://localhost:8000 of `vllm serve`"
        ) from error
    if wanted and wanted not in models:
        raise UserError(f"--server-model {wanted} is not on {address}: it has {', '.join(models) or 'none'}")
    if not wanted and len(models) != 1:
        raise UserError(f"{address} has {', '.join(models) or 'no model'}: say with --server-model which is {path}")
    name = wanted or next(iter(models))
    root = models[name]
    if root and Path(root).exists() and Path(root).resolve() != Path(path).resolve():
        raise UserError(f"{address} serves {root}, not {path}: name what it serves, or start it with {path}")
    return name


class ServerEngine:
    """Asks ``at_once`` prompts at the same time of the model ``name``; the server puts them into its chat template."""

    def __init__(self, address: str, name: str, at_once: int) -> None:
        self._address, self._name, self._at_once = address, name, at_once

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[Finished]:
        try:
            yield from asked_at_once(
                lambda messages, place: self._ask(messages, sampling, place), conversations, self._at_once
            )
        except requests.HTTPError as error:
            raise UserError(f"{self._address} refused a prompt: {error.response.text[:300]}") from error
        except requests.RequestException as error:
            raise UserError(
                f"{self._address} stopped answering ({type(error).__name__}): with the server up again, the same "
                "command goes on"
            ) from error

    def _ask(self, messages: Conversation, sampling: Sampling, place: int) -> Completion:
        request = {
            "model": self._name, "messages": messages, "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature, "seed": sampling.seed + place, "chat_template_kwargs": UNTHINKING,
            **_NO_SETTINGS_OF_ITS_OWN,
        }  # fmt: skip
        with _session(self._address, _PATIENT) as session:
            answer = answered(session, base_address(self._address), request)
        return Completion(answer.text, answer.tokens, "length" if answer.truncated else "stop")


def base_address(address: str) -> str:
    """The address without the API's version; people give it with and without."""
    return address.rstrip("/").removesuffix("/v1")


def _session(address: str, retries: Retry | int = 0) -> requests.Session:
    """With the key that some servers ask for, where the environment has it; to this machine, by no proxy."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    session.trust_env = urlsplit(address).hostname not in _THIS_MACHINE
    if key := os.environ.get("OPENAI_API_KEY"):
        session.headers["Authorization"] = f"Bearer {key}"
    return session
