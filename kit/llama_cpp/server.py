"""Start llama.cpp's own llama-server on a free loopback port, ask it, stop it whatever happens."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import requests

from kit.chat_api import Answer, answered
from kit.chat_templates import UNTHINKING
from kit.cli.errors import UserError
from kit.llama_cpp.build import program

START_TIMEOUT_S = 300
CACHE_BYTES = 4  # of a number in the KV cache: float32, so that what is measured is the file and not its rounding
# A file may bring sampling settings of its own (general.sampling.*), which the server takes for what a request leaves
# out. Sampling is by temperature alone, as in the other engines; greedy, the likeliest token is taken at once.
_NO_PENALTIES = {
    "top_k": 1, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "dry_multiplier": 0.0, "xtc_probability": 0.0, "mirostat": 0, "dynatemp_range": 0.0,
}  # fmt: skip
# Runs the server and ends it when its own input ends, which happens when this process is gone: also after kill -9.
_GUARD = """
import subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=lambda: (sys.stdin.read(), server.terminate()), daemon=True).start()
sys.exit(server.wait())
"""


# A line of its log that tells of an error: time, E, the function, what happened. Older builds write no time and no E.
_ERROR = re.compile(r"^(?:[\d.]+ E .*?: |\S+: (?=error|fail|invalid))(?:error loading model: )?(.*)")


@contextmanager
def running_server(gguf: Path, slots: int, context_per_slot: int, adapter: Path | None = None) -> Iterator[str]:
    """A server for ``gguf`` with ``slots`` parallel slots of ``context_per_slot`` tokens; yields its address.

    ``adapter`` is a GGUF that it puts onto it.

    Raises:
        UserError: the file cannot be served; the server's own reason is in the message.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-c", _GUARD,
        str(program("llama-server")), "--model", str(gguf), "--host", "127.0.0.1", "--port", str(port),
        "--parallel", str(slots), "--ctx-size", str(slots * context_per_slot), "--threads", str(os.cpu_count() or 2),
        "--no-webui", "--jinja", "--reasoning-format", "none", "--cache-type-k", "f32", "--cache-type-v", "f32",
        *(["--lora", str(adapter)] if adapter else []),
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        server = subprocess.Popen(  # in a session of its own: Ctrl-C is ours to handle
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            if not _becomes_ready(server, address):
                raise UserError(
                    f"llama-server could not load {gguf}{f' with {adapter}' if adapter else ''}: {_reason(log)}. Fetch "
                    "or export the file again; if it is whole, this llama.cpp does not know its kind"
                )
            yield address
        except requests.HTTPError as error:
            raise UserError(f"llama-server refused a prompt: {error.response.text[:300]}") from error
        except requests.RequestException as error:
            raise UserError(f"llama-server stopped answering ({type(error).__name__}). {_last_lines(log)}") from error
        finally:
            assert server.stdin is not None
            server.stdin.close()  # the guard's sign to end the server
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, 9)
                server.wait()


def _local() -> requests.Session:
    """Requests that never go through a proxy."""
    session = requests.Session()
    session.trust_env = False
    return session


def _reason(log: IO[str]) -> str:
    """The first error in the log: those after it only say that there was one."""
    log.seek(0)
    errors = [found[1].strip() for line in log if (found := _ERROR.match(line))]
    return errors[0][:300] if errors else _last_lines(log).strip()


def _last_lines(log: IO[str]) -> str:
    log.seek(0)
    return "Its last lines:\n" + "".join(log.readlines()[-5:])


def _becomes_ready(server: subprocess.Popen, address: str) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if _local().get(f"{address}/health", timeout=5).ok:
                return True
        except requests.RequestException:
            pass
        time.sleep(0.1)
    return False


def ask(
    address: str, messages: list[dict[str, str]], max_tokens: int, temperature: float = 0.0, seed: int = 0,
    logprobs: bool = False,
) -> Answer:  # fmt: skip
    """One reply, through the chat template in the file; temperature 0 is greedy."""
    request: dict[str, Any] = {"messages": messages, "max_tokens": max_tokens, "seed": seed, "logprobs": logprobs}
    request |= {"chat_template_kwargs": UNTHINKING}
    request |= _NO_PENALTIES | {"temperature": temperature, "samplers": ["temperature" if temperature else "top_k"]}
    return answered(_local(), address, request)
