"""What a command prints, as an SVG picture in which the lines come as they came, for docs/pictures/.

    python -m benchmarks.recording docs/pictures/demo.svg -- make demo

The picture asks for nothing from the network. It plays once, in 24 s, and stays; who has asked for less motion sees all
of it at once. It has what stands on standard output, without lines that only count (``base: 64/200, 4 s left``).
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

WIDTH, MOST_LINES, PLAYED_S = 112, 60, 24.0
_COUNTS = re.compile(r"^[\w ,.-]+: \d+/\d+, .* left|^Loading weights|^\s*$")
_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px/{line_height}px "Fira Code", Menlo, Consolas, monospace; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
.{unique_id}-matrix text {{ animation: come .2s both; }}
@keyframes come {{ from {{ opacity: 0; }} }}
@media (prefers-reduced-motion: reduce) {{ .{unique_id}-matrix text {{ animation: none; }} }}
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
            said.append((time.monotonic() - started, line.rstrip().split("\r")[-1]))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return said


def shortened(said: Said) -> Said:
    """Without what only counts, and of the rest the beginning and the end."""
    kept = [(when, line) for when, line in said if not _COUNTS.match(line)]
    if len(kept) <= MOST_LINES:
        return kept
    before = MOST_LINES // 3
    return [*kept[:before], (kept[before][0], f"… {len(kept) - MOST_LINES} lines …"), *kept[before - MOST_LINES :]]


def as_svg(said: Said, title: str) -> str:
    """The picture."""
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

    return re.sub(r'clip-path="url\(#demo-line-(\d+)\)"', coming, svg)


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
