"""docs/results: files that people send in, and the page that is made of them."""

import json
from pathlib import Path

from benchmarks import share
from kit.storage.run_folder import RunFolder


def test_the_page_is_made_of_the_files_that_lie_beside_it():
    assert (share.FOLDER / "README.md").read_text(encoding="utf-8") == share.page()


def test_a_run_is_told_with_its_memory_and_scores_and_no_place_of_this_machine(chain, tmp_path, monkeypatch):
    run = RunFolder(chain / "short")
    monkeypatch.setattr(share, "FOLDER", tmp_path)
    told = share.told(run, "alone")
    (tmp_path / "short.json").write_text(json.dumps(told), encoding="utf-8")
    assert told["machine"]["taken_gib"] > 0.3  # Python and torch alone take that
    assert told["steps"] == 3
    assert told["set"]["rewards"] == "original"
    assert [row["name"] for row in told["scores"]][:3] == ["base", "adapter", "merged"]
    assert str(Path(run.base_model()).parent) not in json.dumps(told)
    page = share.page()
    assert "| a processor | base, train.jsonl |" in page
    assert " of 50 |" in page
    assert "[short](short.json): alone" in page
