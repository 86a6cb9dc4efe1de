"""Seconds of an export to q8_0 and q4_k_m: the kit, which checks what it writes, beside llama.cpp's tools by hand.

    python -m benchmarks.export runs/demo

Both start from the merged folder of a finished run; the kit's export is given a copy of the run folder.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.in_turn import in_turn, seconds_of
from benchmarks.record import write_result
from kit.llama_cpp.build import llama_cpp_folder, program

ROUNDS = 5
KINDS = ("q8_0", "q4_k_m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(args.run, Path(scratch) / "demo"))
        figures = in_turn("exports, in turn", ROUNDS, lambda: by_the_kit(copy), lambda: by_hand(copy))
    print(write_result("export", {"kinds": KINDS, "kit_to_by_hand": figures}, packages=("transformers", "torch")))


def by_the_kit(run: Path) -> float:
    """merge_and_export.py --only-gguf, with its checks."""
    shutil.rmtree(run / "gguf", ignore_errors=True)
    return seconds_of(sys.executable, "merge_and_export.py", run, "--only-gguf", "--gguf", *KINDS)


def by_hand(run: Path) -> float:
    """The converter and the quantizer, nothing checked."""
    with tempfile.TemporaryDirectory() as scratch:
        f16 = Path(scratch) / "f16.gguf"
        converter = llama_cpp_folder() / "convert_hf_to_gguf.py"
        converted = seconds_of(sys.executable, converter, run / "merged", "--outtype", "f16", "--outfile", f16)
        return converted + sum(
            seconds_of(program("llama-quantize"), f16, Path(scratch) / f"{kind}.gguf", kind.upper()) for kind in KINDS
        )


if __name__ == "__main__":
    main()
