"""The pages of docs/ do what they show."""

import re

import pytest

from tests.conftest import ROOT, run_script


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_its_python_prints_what_it_says(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for code, shown in re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL):
        assert run_script("-c", code).stdout == shown


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_the_files_that_it_names_are_there(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert [name for name in re.findall(r"`((?:kit/)?[\w/]+\.py)`", text) if not (ROOT / name).is_file()] == []
