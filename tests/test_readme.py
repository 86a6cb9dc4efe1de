"""The two READMEs say the same things to type, and what they explain is explained so."""

import re

import pytest

from tests.conftest import ROOT

READMES = ("README.md", "README.es.md")
COMMAND = re.compile(r"(?:make|python|pip|\$ python) .+")
MOST_LINES = 150  # of a page that people read to its end


def code_blocks(name):
    return re.findall(r"^```\w*\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(name):
    """The command lines of a README's code blocks, without their comments, which are in its own language."""
    lines = [line for block in code_blocks(name) for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if COMMAND.fullmatch(line)]


def test_both_readmes_have_the_same_commands():
    english, spanish = map(commands, READMES)
    assert len(english) >= 6
    assert english == spanish


@pytest.mark.parametrize("name", READMES)
def test_it_is_short(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("name", ["docs/rewards.md", "docs/es/recompensas.md"])
def test_the_replies_that_it_explains_are_explained_so(name):
    from rewards import explain

    walk = [block for block in code_blocks(name) if "correctness " in block]
    assert len(walk) == 3
    for block in walk:
        reply = "\n".join(line[:40].rstrip() for line in block.splitlines()).rstrip()
        shown = [line[40:] for line in block.splitlines() if line[40:].strip()]
        explained = explain(reply, "18").splitlines()
        assert set(shown) <= set(explained)


def test_the_account_in_the_links_is_the_one_that_is_set():
    account = re.search(
        r'Repository = "https://github.com/([\w-]+)/onecard"', (ROOT / "pyproject.toml").read_text("utf-8")
    )[1]
    for page in ("README.md", "README.es.md"):
        shown = re.findall(r"github(?:\.com)?/([\w-]+)/onecard", (ROOT / page).read_text(encoding="utf-8"))
        assert set(shown) == {account}
