"""The recording of a command is a picture that stands alone and shows what was printed, when it was."""

import re
import sys
from xml.etree import ElementTree

from benchmarks.recording import MOST_LINES, as_svg, recorded, shortened


def test_what_is_printed_comes_as_it_came():
    said = recorded([sys.executable, "-c", "print('one <&> two'); print('base: 64/200, 4 s left'); print('three')"])
    kept = shortened(said)
    assert [line for _, line in kept] == ["one <&> two", "three"]
    svg = as_svg([(0.0, "one <&> two"), (5.0, "three")], "$ it")
    ElementTree.fromstring(svg)
    assert re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]
    assert "animation-delay:0.0s" in svg
    assert "animation-delay:24.0s" in svg
    assert "one&#160;&lt;&amp;&gt;&#160;two" in svg


def test_a_long_one_has_its_beginning_and_its_end():
    kept = shortened([(float(number), f"line {number}") for number in range(500)])
    assert len(kept) <= MOST_LINES + 1
    assert kept[0][1] == "line 0"
    assert kept[-1][1] == "line 499"
    assert any(line.startswith("…") for _, line in kept)
