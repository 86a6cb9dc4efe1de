"""The notebook runs from top to bottom, here with the demo's model on a processor, and leaves what it promises."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "train_on_colab.ipynb"


def cells():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_it_holds_no_output():
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_it_finds_the_repository_that_colab_opened_it_from(monkeypatch):
    """Colab's list of what is open is a fake here: there is no Colab."""
    install = "".join(cells()[1]["source"])
    names: dict = {}
    exec(install[install.index("import json") : install.index("REPOSITORY =")], names)
    exec(install[install.index("def opened_from") : install.index("if (ON_COLAB")], names)
    opened = "fileId=https%3A//github.com/some-one/onecard/blob/main/notebooks/train_on_colab.ipynb"
    answer = io.StringIO(json.dumps([{"path": opened, "name": "train_on_colab.ipynb"}]))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: answer)
    assert names["opened_from"]() == "some-one/onecard"
    answer = io.StringIO('[{"path": "fileId=/content/drive/MyDrive/mine.ipynb"}]')
    assert names["opened_from"]() == ""


def test_a_colab_without_a_card_is_told_to_choose_one(monkeypatch):
    install = "".join(cells()[1]["source"])
    names = {"ON_COLAB": True, "ON_KAGGLE": False, "shutil": shutil}
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="T4 GPU"):
        exec(install[install.index("if (ON_COLAB") : install.index("if ON_COLAB:")], names)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(chain, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    run = tmp_path / "colab"
    options = f"--config {ROOT}/tests/short.yaml --model {chain}/base --dataset {chain}/data/train.jsonl --max-steps 3"
    monkeypatch.setenv("ONECARD_RUN", str(run))
    monkeypatch.setenv("ONECARD_OPTIONS", options)
    monkeypatch.setenv("ONECARD_PLAN", "--gpu t4")
    monkeypatch.setenv("ONECARD_MIRROR", f"--mirror {tmp_path}/drive")
    monkeypatch.setenv("ONECARD_QUESTIONS", f"--dataset {chain}/data/heldout.jsonl --limit 20")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    done = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    said = "".join(out.get("text", "") for cell in done.cells for out in cell.get("outputs", []))
    assert "It fits." in said
    assert "3/3  reward" in said
    assert "error:" not in said
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert (tmp_path / "drive" / "colab" / "run.yaml").is_file()
    assert {row["name"] for row in json.loads((run / "scores.json").read_text())["rows"]} >= {"base", "adapter", "q8_0"}
    shown = [out["data"]["text/html"] for cell in done.cells for out in cell.get("outputs", []) if "data" in out]
    assert any("iframe" in page and "Training" in page for page in shown)
    assert "ollama create" in said
