"""How far from f16 does each GGUF type leave a model's tensors? What the gate's bounds for it are drawn from.

    python -m benchmarks.rounding MODEL_FOLDER [TYPE ...]

The model's matrices get noise of a third of their size first: folders that were unpacked from a 4-bit file lie on the
steps of such types, and would be rounded too well. Types that need an importance matrix get one of the demo's problems,
and two that do not are made with it and without. A tensor type's figures are its farthest over all file types.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.record import write_result
from demo.problems import problems
from kit.cli.errors import UserError, first_line
from kit.export.checks.rounding import rms, rows_of
from kit.llama_cpp.build import GGUF_TYPES, VERSION
from kit.llama_cpp.gguf import CONVERTED, NEED_IMATRIX, GgufFile, convert, quantize, with_readable_weights
from kit.llama_cpp.imatrix import make_imatrix
from kit.models.tensors import Tensors

NOISE, SEED, PROBLEMS = 0.3, 0, 400
ALSO_BY_IMATRIX = ("q4_k_m", "iq4_xs")


def with_noise(model: Path, folder: Path) -> Path:
    """A copy of a model's folder, in float16, whose matrices lie anywhere between the steps of a type."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    torch.manual_seed(SEED)
    tensors = Tensors(model)
    weights = {}
    for name in tensors:
        tensor = tensors[name].float()
        noise = NOISE * tensor.std() * torch.randn_like(tensor) if tensor.dim() == 2 else 0
        weights[name] = (tensor + noise).half()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def distances(file: GgufFile, f16: GgufFile, scratch: Path) -> Iterator[tuple[str, float, float]]:
    """Of each quantized tensor: (its type, its distance from f16 beside its size, that of its farthest row beside what
    even steps would leave)."""
    readable = with_readable_weights(file, scratch)
    for name in file.names:
        if bits := file.bits_of(name):
            parts = list(rows_of(readable, f16, name, bits))
            size, distance, step = (
                torch.cat([getattr(part, field) for part in parts]) for field in ("size", "distance", "step")
            )
            of_steps = distance[step > 0] / (step[step > 0] / 12**0.5)
            yield file.type_of(name), (rms(distance, 0) / rms(size, 0)).item(), of_steps.max().item()


def figures(model: Path, kinds: list[str], scratch: Path) -> list[dict[str, Any]]:
    """Of each tensor type that those file types hold, the farthest of its tensors."""
    f16, file = scratch / "f16.gguf", scratch / "one.gguf"
    convert(with_noise(model, scratch / "model"), f16, "f16", model.name)
    text = "\n\n".join(f"{problem.question}\n{problem.answer}" for problem in islice(problems(SEED, False), PROBLEMS))
    imatrix = make_imatrix(f16, text, "the demo's problems", scratch)
    ways = [(kind, None) for kind in kinds if kind not in NEED_IMATRIX]
    ways += [(kind, imatrix) for kind in kinds if kind in (*NEED_IMATRIX, *ALSO_BY_IMATRIX)]
    rows: dict[tuple[str, bool], dict[str, Any]] = {}
    for kind, matrix in ways:
        try:
            quantize(f16, file, kind, matrix)
        except UserError as error:  # q1_0 of rows that 128 does not divide
            print(f"{kind}: {first_line(error)}")
            continue
        for name, of_size, of_steps in distances(GgufFile(file), GgufFile(f16), scratch):
            about = {"type": name, "by_importance": bool(matrix), "tensors": 0, "of_size": 0.0, "of_steps": 0.0}
            row = rows.setdefault((name, bool(matrix)), about)
            row["tensors"] += 1
            row["of_size"] = max(row["of_size"], round(of_size, 4))
            row["of_steps"] = max(row["of_steps"], round(of_steps, 3))
        print(kind, "with an importance matrix" if matrix else "", flush=True)
    return sorted(rows.values(), key=lambda row: -row["of_size"])


def main() -> None:
    model = Path(sys.argv[1])
    kinds = sys.argv[2:] or [kind for kind in GGUF_TYPES if kind not in CONVERTED]
    with tempfile.TemporaryDirectory() as scratch:
        rows = figures(model, kinds, Path(scratch))
    for row in rows:
        print(row)
    print(write_result(f"rounding_{model.name}", {"noise": NOISE, "llama.cpp": VERSION, "of": rows}))


if __name__ == "__main__":
    main()
