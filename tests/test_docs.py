"""The pages of docs/ do what they show, and name what is there."""

import re

import pytest

from tests.conftest import ROOT, run_script

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("README*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
PYTHON = [(page, code) for page, text in TEXTS.items() for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
SHOWN = [
    pair for text in TEXTS.values() for pair in re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
]
CODE = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "kit").rglob("*.py"))
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9_-]+")
OF_OTHERS = {  # pip's, WSL's, accelerate's, torchrun's, vLLM's, llama.cpp's
    "--no-deps", "--install", "--multi_gpu", "--num_processes", "--num_machines", "--machine_rank", "--main_process_ip",
    "--main_process_port", "--nproc_per_node", "--data-parallel-size", "--lora",
}  # fmt: skip


@pytest.fixture(scope="module")
def options():
    """All that the four scripts know."""
    helps = [run_script(name, "--help").stdout for name in sorted(path.name for path in ROOT.glob("*.py"))]
    return OF_OTHERS.union(*(OPTION.findall(said.replace("-\n", "-")) for said in helps))


@pytest.mark.parametrize(("code", "shown"), SHOWN)
def test_its_python_prints_what_it_says(code, shown):
    assert run_script("-c", code).stdout == shown


def test_its_python_can_be_read():
    assert len(SHOWN) == 2
    assert len(PYTHON) > len(SHOWN)
    for page, code in PYTHON:
        compile(code, page.name, "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_and_pages_that_it_names_are_there(page):
    text = page.read_text(encoding="utf-8")
    files = {name for name in re.findall(r"`((?:kit/)?[\w/]+\.py)`", text) if not (ROOT / name).is_file()}
    assert [name for name in files if not name.startswith("my_")] == []  # those are a reader's own
    links = [link.split("#") for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)]
    assert [link for link in links if link[0] and not (page.parent / link[0]).exists()] == []
    titles = {
        link[0]: re.findall(r"^#+ (.+)$", (page.parent / link[0] if link[0] else page).read_text("utf-8"), re.MULTILINE)
        for link in links
        if len(link) == 2
    }
    assert [link for link in links if len(link) == 2 and link[1] not in map(_anchor, titles[link[0]])] == []


def _anchor(title):
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_scripts_targets_and_options_that_it_names_are_there(page, options):
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in re.findall(r"python (\w+\.py)", text) if not (ROOT / name).is_file()] == []
    assert [name for name in re.findall(r"make ([a-z-]+)\b[`\n ]", text) if f"\n{name}:" not in makefile] == []
    assert sorted(set(OPTION.findall(text)) - options) == []


def test_every_alarm_is_explained():
    names = re.findall(r'Alarm\(\s*"([^"]+)"', CODE)
    text = (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8")
    assert len(names) > 10
    assert [name for name in names if f"\n| {name} |" not in text] == []


def test_every_refusal_that_is_explained_is_one():
    text = (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8").split("## Refusals")[1]
    said = re.findall(r"^\| \*(.+?)\* \|", text, re.MULTILINE)
    assert len(said) > 4
    assert [words for words in said for part in words.split(" … ") if part not in CODE] == []
