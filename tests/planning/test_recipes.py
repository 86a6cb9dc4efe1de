"""The recipes are read, and need the card that the page says."""

import pytest

from benchmarks.fits import CONFIGS, RECIPES, rows
from kit.settings.reading import read_settings
from tests.conftest import ROOT

FILES = sorted(RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recipe_is_read(file):
    settings, problems = read_settings(["--config", str(file)], "")
    assert problems.found == []
    assert settings.given == {"model", "output_dir"}
    assert f"--config recipes/{file.name}" in file.read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("page", ["models.md", "es/modelos.md"])
def test_the_page_says_of_each_what_the_plan_says(page):
    assert {file.stem for file in FILES} == set(CONFIGS)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for row in rows():
        name, *plan = (cell.strip(" `") for cell in row.strip("|").split("|"))
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `recipes/{name}.yaml`")]
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        assert cells[2:5] == plan, name
