"""What is done apart leaves nothing here, hands over what it raised, and ends when this process does."""

import os
import subprocess
import sys
import time

import pytest

from kit.apart import apart
from kit.errors import UserError
from tests.conftest import ROOT

SLOW = """
import sys, time
from pathlib import Path
from kit.apart import apart

def beat(file):
    while True:
        Path(file).write_text(str(time.monotonic()))
        time.sleep(0.05)

if __name__ == "__main__":
    apart(beat, sys.argv[1])
"""


def patched():
    os.environ["ONECARD_PATCHED"] = "1"
    return os.getpid()


def refused():
    raise UserError("this is wrong", "and this")


def test_nothing_of_it_stays_here():
    assert apart(patched) != os.getpid()
    assert "ONECARD_PATCHED" not in os.environ


def test_what_it_raises_is_raised_here():
    with pytest.raises(UserError) as error:
        apart(refused)
    assert error.value.problems == ("this is wrong", "and this")


def test_it_ends_with_the_process_that_called_it(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    beats = tmp_path / "beats"
    caller = subprocess.Popen([sys.executable, tmp_path / "slow.py", beats], env=os.environ | {"PYTHONPATH": str(ROOT)})
    while not beats.exists():
        assert caller.poll() is None
        time.sleep(0.05)
    caller.kill()
    caller.wait()
    time.sleep(1)
    last = beats.read_text(encoding="utf-8")
    time.sleep(0.5)
    assert beats.read_text(encoding="utf-8") == last
