"""What the tests of the page share: a real browser, where there is one."""

import pytest

from tests.report.browser import browser, installed


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    if not (program := installed()):
        pytest.skip("no Chromium on this machine: apt install chromium, or Google Chrome")
    with browser(program, tmp_path_factory.mktemp("profile")) as page:
        yield page
