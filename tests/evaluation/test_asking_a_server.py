"""A server answers for an artefact: the replies that an engine here gives, and a sentence where it cannot be."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from kit.llama_cpp.server import running_server
from kit.storage.run_folder import RunFolder, read_jsonl
from tests.conftest import run_script

QUESTIONS = 20


def evaluated(chain, path, *options, check=True):
    data = ("--dataset", chain / "data" / "heldout.jsonl", "--limit", QUESTIONS)
    return run_script("evaluate.py", path, *data, *options, check=check)


@pytest.fixture(scope="module")
def gguf(chain):
    return RunFolder(chain / "short").gguf_file("q8_0")


def test_it_answers_as_the_engine_here_does_and_the_same_command_goes_on(chain, gguf, tmp_path):
    with running_server(gguf, slots=4, context_per_slot=1024) as address:
        said = evaluated(chain, gguf, "--server", f"{address}/v1/", "--batch-size", 4, "--output-dir", tmp_path).stdout
        assert "as served, " in said
        again = evaluated(chain, gguf, "--server", address, "--output-dir", tmp_path).stdout
        assert f"{QUESTIONS} of {QUESTIONS} replies are there already" in again
    (row,) = json.loads((tmp_path / "scores.json").read_text())["rows"]
    here = {
        line["question"]: line["reply"] for line in read_jsonl(RunFolder(chain / "short").transcripts / "q8_0.jsonl")
    }
    served = [line for file in (tmp_path / "transcripts").iterdir() for line in read_jsonl(file)]
    assert len(served) == row["questions"] == QUESTIONS
    assert sum(line["reply"] == here[line["question"]] for line in served) >= QUESTIONS - 1  # a tie may fall otherwise


def test_a_run_folder_names_too_many(chain):
    done = evaluated(chain, chain / "short", "--server", "http://127.0.0.1:9", check=False)
    assert done.returncode == 2
    assert "--server answers for one artefact" in done.stderr


def test_nobody_there(chain, gguf, tmp_path):
    done = evaluated(chain, gguf, "--server", "http://127.0.0.1:9", "--output-dir", tmp_path, check=False)
    assert done.returncode == 2
    assert "--server http://127.0.0.1:9 does not say which models it has" in done.stderr


@pytest.fixture
def lists_models():
    """A server that says which models it has, and no more."""

    class Lists(BaseHTTPRequestHandler):
        def do_GET(self):
            content = json.dumps({"data": self.server.models}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Lists)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.mark.parametrize(
    ("models", "options", "says"),
    [
        ([{"id": "a"}, {"id": "b"}], (), "has a, b: say with --server-model which is"),
        ([{"id": "a"}], ("--server-model", "c"), "--server-model c is not on"),
        ([{"id": "a", "root": "tests"}], (), "serves tests, not "),
    ],
)
def test_another_model(chain, gguf, tmp_path, lists_models, models, options, says):
    lists_models.models = models
    address = f"http://127.0.0.1:{lists_models.server_port}"
    done = evaluated(chain, gguf, "--server", address, *options, "--output-dir", tmp_path, check=False)
    assert done.returncode == 2
    assert says in done.stderr
