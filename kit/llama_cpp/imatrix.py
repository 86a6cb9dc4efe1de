"""An importance matrix: how large each weight's inputs are on a text. llama-quantize rounds by it what matters most."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kit.cli.errors import UserError
from kit.llama_cpp.build import program
from kit.llama_cpp.gguf import CONVERTED, GgufFile
from kit.llama_cpp.running import TOO_SHORT, output_of

_WINDOW = 512  # tokens that are read together, llama-imatrix's own choice
UNCHANGED = (*CONVERTED, "q8_0")  # types that llama-quantize rounds alike with a matrix and without


@dataclass(frozen=True)
class UsedMatrix:
    """What a GGUF file says of the importance matrix that it was made with.

    Args:
        made_from: the name of the text.
        windows: of 512 tokens each, that were read.
        matrices: of the model that it knows.
    """

    made_from: str
    windows: int
    matrices: int


def make_imatrix(f16: Path, text: str, about: str, scratch: Path) -> Path:
    """Let llama-imatrix read ``text``, with its special tokens as such, and write an importance matrix.

    Args:
        f16: the model that reads it.
        text: at least 1,024 tokens of it.
        about: what the text is, in a few words without a slash: GGUF files made with the matrix keep it.
        scratch: where text and matrix are written. The programs run there, since GGUF files keep the paths too.

    Raises:
        UserError: llama-imatrix failed, or the text is too short.
    """
    (scratch / about).write_text(text, encoding="utf-8")
    made = scratch / "imatrix.gguf"
    made.unlink(missing_ok=True)
    command = [
        str(program("llama-imatrix")), "-m", str(f16.resolve()), "-f", about, "-o", made.name, "--parse-special",
        "--ctx-size", str(_WINDOW), "--no-ppl",
    ]  # fmt: skip
    printed = output_of(command, scratch, unless=TOO_SHORT)
    (scratch / about).unlink()
    if not made.exists():
        found = re.search(r"tokenizes to only (\d+) tokens", printed)
        raise UserError(
            f"an importance matrix is made from at least {2 * _WINDOW} tokens, and {about} have "
            f"{found[1] if found else 'fewer'}: train longer, or export without --imatrix"
        )
    return made


def matrix_used_in(gguf: GgufFile) -> UsedMatrix | None:
    """The importance matrix that a GGUF file was made with; ``None`` where it says of none."""
    windows = gguf.value("quantize.imatrix.chunks_count")
    if windows is None:
        return None
    made_from, matrices = (gguf.value(f"quantize.imatrix.{name}") for name in ("dataset", "entries_count"))
    return UsedMatrix(str(made_from or "unknown"), int(windows), int(matrices or 0))
