"""--push-to-hub against a stand-in for the Hub: what is sent, who may see it, and when nothing is sent."""

import json
import os
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from kit.export.hub_upload import upload_list
from kit.storage.atomic import file_hash
from kit.storage.run_folder import RunFolder
from tests.conftest import run_script
from tests.export.test_export import scale_one_matrix


class Hub(ThreadingHTTPServer):
    """Says what the Hub says to its own client, as far as an upload asks; large files it has already."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.visible: dict[str, str] = {}  # repository → private or public
        self.held: list[str] = []  # files of any repository
        self.committed: dict[str, str] = {}  # files, with their sha256

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path, asked):
        """(status, content) of one request; ``asked`` is its body."""
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "ana", "orgs": []}
        if path == "/api/repos/create":
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.visible:
                return 409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"}
            private = asked.get("visibility") == "private" or asked.get("private")  # since and before version 1.10
            self.visible[name] = "private" if private else "public"
            return 200, {"url": f"{self.address}/{name}"}
        if path.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "lfs", "shouldIgnore": False} for file in asked["files"]]
            return 200, {"files": files}
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": asked["objects"]}
        if path.endswith("/commit/main"):
            self.committed |= {
                line["value"]["path"]: line["value"]["oid"] for line in asked if line["key"] == "lfsFile"
            }
            return 200, {"commitUrl": f"{self.address}/ana/sums/commit/{'1' * 40}", "commitOid": "1" * 40}
        if "/tree/main" in path:
            return 200, [{"type": "file", "path": name, "size": 1, "oid": "1"} for name in self.held]
        if path.startswith("/api/models/"):
            name = path.split("/revision/")[0].removeprefix("/api/models/")
            siblings = [{"rfilename": name} for name in self.held]
            return 200, {"id": name, "private": self.visible[name] == "private", "sha": "1" * 40, "siblings": siblings}
        return 200, {}


class _Answers(BaseHTTPRequestHandler):
    def _reply(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        many = self.headers.get("Content-Type") == "application/x-ndjson"
        asked = [json.loads(line) for line in body.splitlines()] if many else json.loads(body or "{}")
        status, content = self.server.answer(self.path.split("?")[0], asked)
        sent = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = _reply

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    with Hub() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def run(chain, tmp_path):
    run = RunFolder(shutil.copytree(chain / "short", tmp_path / "short"))
    (run.gguf / "own.gguf").touch()
    return run


def push(run, hub, *options, check=True):
    """``merge_and_export.py --only-gguf --gguf q8_0 --push-to-hub ana/sums``."""
    env = {name: value for name, value in os.environ.items() if not name.endswith(("_OFFLINE", "_PROXY", "_proxy"))}
    env |= {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_ana", "HF_HUB_DISABLE_XET": "1"}
    command = ["merge_and_export.py", run.path, "--only-gguf", "--gguf", "q8_0", "--push-to-hub", "ana/sums"]
    return run_script(*command, *options, check=check, env=env)


def test_an_export_is_uploaded_for_its_owner_alone(run, hub):
    hub.held = ["earlier.q4_k_m.gguf", "README.md"]
    said = push(run, hub).stdout
    assert hub.visible == {"ana/sums": "private"}
    parts = {"model.safetensors", "config.json", "tokenizer.json", "generation_config.json"}
    assert parts | {"short.q8_0.gguf", "Modelfile", "README.md", "export.json"} <= {*hub.committed}
    assert hub.committed == {name: file_hash(file) for name, file in upload_list(run).items()}
    assert "own.gguf" not in hub.committed
    assert "own.gguf stays here" in said
    assert "ana/sums holds earlier.q4_k_m.gguf too" in said
    assert f"{hub.address}/ana/sums" in said
    card = run.model_card.read_text(encoding="utf-8")
    assert "ana/sums" in card


def test_for_everybody_only_when_that_is_said(run, hub):
    hub.visible["ana/sums"] = "public"
    refused = push(run, hub, check=False)
    assert refused.returncode == 2
    assert "ana/sums is public: add --public if that is meant" in refused.stderr
    assert not hub.committed
    del hub.visible["ana/sums"]
    push(run, hub, "--public")
    assert hub.visible == {"ana/sums": "public"}
    assert "short.q8_0.gguf" in hub.committed


def test_what_is_refused_is_not_uploaded(run, hub):
    scale_one_matrix(run)
    refused = push(run, hub, check=False)
    assert refused.returncode == 3
    assert not hub.visible
    assert not hub.committed
