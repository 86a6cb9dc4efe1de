"""The recording of a command is a picture that stands alone and shows what was printed, when it was."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.recording import PLAYED_S, WINDOW, as_svg, recorded, shortened


def test_what_is_printed_comes_as_it_came():
    script = "import pathlib; print('one <&> two'); print('base: 64/200, 4 s left'); print(pathlib.Path.home() / 'it')"
    kept = shortened(recorded([sys.executable, "-c", script]))
    assert [line for _, line in kept] == ["one <&> two", "~/it"]
    assert str(Path.home()) not in kept[1][1]
    svg = as_svg([(0.0, "one <&> two"), (5.0, "three")], "$ it")
    ElementTree.fromstring(svg)
    assert re.findall(r"https?://[^\"]+", svg) == ["http://www.w3.org/2000/svg"]
    assert "animation-delay:0.0s" in svg
    assert f"animation-delay:{PLAYED_S}s" in svg
    assert "one&#160;&lt;&amp;&gt;&#160;two" in svg


def test_of_a_training_there_are_some_steps_one_reply_and_no_long_pause():
    said = [(0.0, "python train_lora.py")]
    for step in range(1, 25):
        said.append((100.0 * step, f"{step:2}/24  reward  1.00"))
        if step % 10 == 0:
            said += [(100.0 * step, f"╭─ step {step}"), (100.0 * step, "│ a reply"), (100.0 * step, "╰──")]
    kept = shortened(said)
    assert [line.split("/")[0].strip() for _, line in kept if "reward" in line] == ["1", "12", "24"]
    assert [line for _, line in kept].count("│ a reply") == 1
    assert [when for when, line in kept if "24/24" in line] == [4.0]


def test_a_long_one_goes_up_in_a_window():
    svg = as_svg([(float(number), f"line {number}") for number in range(WINDOW + 20)], "$ it")
    ElementTree.fromstring(svg)
    whole = as_svg([(float(number), f"line {number}") for number in range(WINDOW)], "$ it")
    height = r'viewBox="0 0 [\d.]+ ([\d.]+)"'
    assert abs(float(re.search(height, svg)[1]) - float(re.search(height, whole)[1])) < 5
    ups = [float(up) for up in re.findall(r"% \{ transform: translateY\((-[\d.]+)px", svg)]
    assert len(ups) == 20
    assert ups == sorted(ups, reverse=True)
    assert f"{{ transform: translateY({ups[-1]:.1f}px); animation" in svg  # where it stays, and what stands still
