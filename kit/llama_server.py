"""Start llama.cpp's own llama-server on a free loopback port, ask it, stop it whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from kit.errors import UserError
from kit.llama_cpp import program

START_TIMEOUT_S = 300
REPLY_TIMEOUT_S = 3600


@contextmanager
def running_server(gguf: Path, slots: int, context_per_slot: int) -> Iterator[str]:
    """A server for ``gguf`` with ``slots`` parallel slots of ``context_per_slot`` tokens; yields its address.

    The KV cache is kept in float32, so that what is measured is the file and not the cache's rounding.

    Raises:
        UserError: the file cannot be served; the end of the server's own log is in the message.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        str(program("llama-server")), "--model", str(gguf), "--host", "127.0.0.1", "--port", str(port),
        "--parallel", str(slots), "--ctx-size", str(slots * context_per_slot), "--threads", str(os.cpu_count() or 2),
        "--no-webui", "--jinja", "--cache-type-k", "f32", "--cache-type-v", "f32",
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            if not _becomes_ready(server, address):
                log.seek(0)
                last_lines = "".join(log.readlines()[-5:])
                raise UserError(f"llama-server could not load {gguf}: export it again. Its last lines:\n{last_lines}")
            yield address
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _becomes_ready(server: subprocess.Popen, address: str) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return True
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    return False


def ask(address: str, messages: list[dict[str, str]], max_tokens: int) -> tuple[str, int, bool]:
    """One greedy reply, through the chat template in the file: text, length in tokens, whether it was cut off."""
    answer = requests.post(
        f"{address}/v1/chat/completions",
        json={"messages": messages, "max_tokens": max_tokens, "temperature": 0.0, "seed": 0},
        timeout=REPLY_TIMEOUT_S,
    )
    answer.raise_for_status()
    body = answer.json()
    choice = body["choices"][0]
    return choice["message"]["content"], body["usage"]["completion_tokens"], choice["finish_reason"] == "length"
