"""What a command prints, as an SVG picture of a terminal in which the lines come as they came, for docs/pictures/.

    python -m benchmarks.recording docs/pictures/demo.svg -- make demo

The picture asks for nothing from the network. It plays once, with no pause longer than a second, and stays at the end;
who has asked for less motion sees that. It has what stands on standard output, but for lines that only count
(``base: 64/200, 4 s left``), most steps of a training, and all sample replies but the first.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

WIDTH, WINDOW, PLAYED_S, PAUSE_S = 112, 30, 30.0, 1.0  # characters, lines, seconds of it all and of a silence
EVERY = 12  # of a training's steps one is shown
_COUNTS = re.compile(r"^[\w ,.-]+: \d+/\d+, .* left|^Loading weights|^\s*$")
_STEP = re.compile(r"^\s*(\d+)/\d+  reward ")
_HOME = str(Path.home())
_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px "Fira Code", Menlo, Consolas, monospace; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
.{unique_id}-matrix text {{ animation: come .2s both; }}
@keyframes come {{ from {{ opacity: 0; }} }}
/* scrolling */
@media (prefers-reduced-motion: reduce) {{
.{unique_id}-matrix, .{unique_id}-matrix text {{ animation: none !important; }}
}}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""

Said = list[tuple[float, str]]  # seconds since the start, and a line


def recorded(command: list[str]) -> Said:
    """Run a command, show what it prints, and return that with the times.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    said: Said = []
    started = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append((time.monotonic() - started, line.rstrip().split("\r")[-1].replace(_HOME, "~")))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return said


def shortened(said: Said) -> Said:
    """Without what only counts or has been seen, and without long pauses."""
    kept: Said = []
    samples, in_sample, now, before = 0, False, 0.0, 0.0
    for when, line in said:
        if line.startswith("╭"):
            samples, in_sample = samples + 1, True
        step = _STEP.match(line)
        is_between = step and step[1] != "1" and int(step[1]) % EVERY
        is_left_out = _COUNTS.match(line) or (in_sample and samples > 1) or is_between
        in_sample = in_sample and not line.startswith("╰")
        if not is_left_out:
            now, before = now + min(when - before, PAUSE_S), when
            kept.append((now, line))
    return kept


def as_svg(said: Said, title: str) -> str:
    """The picture: as many lines as a window has, and all of them in passing."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=WIDTH, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    for _, line in said:
        console.print(Text.from_ansi(line), overflow="crop", no_wrap=True)
    svg = console.export_svg(title=title, code_format=_FORMAT, unique_id="demo")
    total = max(when for when, _ in said) or 1.0

    def coming(match: re.Match[str]) -> str:
        when = said[min(int(match[1]), len(said) - 1)][0]
        return f'{match[0]} style="animation-delay:{when / total * PLAYED_S:.1f}s"'

    svg = re.sub(r'clip-path="url\(#demo-line-(\d+)\)"', coming, svg)
    return _in_a_window(svg, [when / total for when, _ in said])


def _in_a_window(svg: str, shares: list[float]) -> str:
    """The picture with a window's height, in which the lines go up; ``shares`` of the playing time when each comes."""
    above = len(shares) - WINDOW
    if above <= 0:
        return svg
    line = round(float(re.findall(r'<text [^>]*y="([\d.]+)"', svg)[-1]) / len(shares), 1)

    def lower(match: re.Match[str]) -> str:
        height = float(match[2])
        return f"{match[1]}{height - above * line if height > above * line else height:g}{match[3]}"

    for pattern in (r'(viewBox="0 0 [\d.]+ )([\d.]+)(")', r'(<rect [^>]*?height=")([\d.]+)(")'):
        svg = re.sub(pattern, lower, svg)
    moves = "".join(
        f"{100 * shares[WINDOW + number]:.2f}% {{ transform: translateY({-(number + 1) * line:.1f}px) }}\n"
        for number in range(above)
    )
    rules = (
        f".demo-matrix {{ transform: translateY({-above * line:.1f}px); animation: up {PLAYED_S:g}s step-end both; }}\n"
        f"@keyframes up {{\n0% {{ transform: none }}\n{moves}}}"
    )
    return svg.replace("/* scrolling */", rules)


def main() -> None:
    file, dashes, *command = sys.argv[1:] or [""]
    if dashes != "--" or not command:
        sys.exit("python -m benchmarks.recording FILE.svg -- COMMAND …")
    said = recorded(command)
    minutes = max(when for when, _ in said) / 60
    title = f"$ {' '.join(command)}   ({minutes:.0f} minutes)"
    Path(file).write_text(as_svg(shortened(said), title), encoding="utf-8")


if __name__ == "__main__":
    main()
