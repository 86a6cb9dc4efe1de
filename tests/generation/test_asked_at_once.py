"""Many prompts at the same time: what fails costs no other its reply, and nobody waits for what nobody wants."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from textwrap import dedent

import pytest

from kit.cli.errors import UserError
from kit.generation.asked_at_once import asked_at_once
from kit.generation.engine import Completion, Sampling
from kit.generation.server_engine import ServerEngine
from tests.conftest import ROOT


def test_each_is_asked_once_and_so_many_at_a_time():
    under_way, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(4)

    def ask(messages, place):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        full.wait(timeout=60)
        with lock:
            under_way -= 1
        return Completion(f"{messages} {place}", 1, "stop")

    replies = [reply for batch in asked_at_once(ask, list("abcdefgh"), 4) for reply in batch]
    assert sorted((place, reply.text) for place, reply in replies) == [(n, f"{'abcdefgh'[n]} {n}") for n in range(8)]
    assert most == 4


def test_one_that_fails_costs_those_under_way_nothing_and_no_further_one_is_asked():
    failed, asked, all_there = threading.Event(), [], threading.Barrier(4)

    def ask(_, place):
        asked.append(place)
        if place < 4:
            all_there.wait(timeout=60)
        if place == 2:
            failed.set()
            raise ValueError("refused")
        failed.wait(timeout=60)
        return Completion("", 1, "stop")

    replies = asked_at_once(ask, [[]] * 50, 4)
    found = []
    with pytest.raises(ValueError, match="refused"):
        found.extend(place for ((place, _),) in replies)
    assert sorted([*found, 2]) == sorted(asked)
    assert {0, 1, 3} <= set(found)
    assert len(asked) < 12


def test_nobody_waits_at_the_end_for_replies_that_nobody_wants():
    """As after Ctrl-C."""
    program = """
        import time
        from kit.generation.asked_at_once import asked_at_once

        def ask(_, place):
            time.sleep(0 if place == 0 else 3600)

        for reply in asked_at_once(ask, [[]] * 8, 4):
            raise SystemExit(7)
    """
    ended = subprocess.run([sys.executable, "-c", dedent(program)], cwd=ROOT, timeout=120, check=False)
    assert ended.returncode == 7


@pytest.fixture
def server():
    """Says 503 to the first request and answers the others; one with "long" in it is refused."""
    said = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status = 400 if "long" in body else 200 if said else 503
            said.append(status)
            reply = {200: b'{"choices": [{"message": {"content": "5"}, "finish_reason": "stop"}], '
                          b'"usage": {"completion_tokens": 1}}'}.get(status, b"too much")  # fmt: skip
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}", said
    http.shutdown()


def test_a_busy_server_is_asked_again_and_one_that_refuses_is_not(server):
    address, said = server
    engine = ServerEngine(address, "m", at_once=1)
    assert [reply.text for ((_, reply),) in engine.generate([[]], Sampling(5))] == ["5"]
    assert said == [503, 200]
    with pytest.raises(UserError, match="refused a prompt: too much"):
        list(engine.generate([[{"role": "user", "content": "long"}]], Sampling(5)))
    assert said == [503, 200, 400]
