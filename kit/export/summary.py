"""What an export has made, and the exact commands to try it, as printed at its end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from kit.evaluation.next_command import evaluation_command
from kit.export.evidence import example_question
from kit.export.modelfile import gguf_of, ollama_name
from kit.export.record import ExportRecord
from kit.llama_cpp.build import program
from kit.storage.run_folder import ADAPTER_KIND, RunFolder

# Of real files seen: 0.07 to 0.17 nats where nine answers of ten begin alike, 2.6 where six of ten do.
_FAR = 0.5


def print_summary(run: RunFolder, record: ExportRecord) -> None:
    """What there is now, and the exact commands to try it."""
    print(f"\n{run.merged}/")
    for entry in record.ggufs.values():
        print(f"{run.gguf / entry['file']}: {_about(entry)}")
    for kind, entry in record.ggufs.items():
        if "note" in entry:
            print(f"! {kind}: {entry['note']}: K-quants and I-quants of this model are larger than their names say")
        if (divergence := entry["mean_kl_from_f16"]) is not None and divergence > _FAR:
            remedy = "a larger type" if "imatrix" in entry or "base" in entry else "--imatrix, or a larger type"
            print(f"! {kind}: its answers are {divergence:.2g} nats a token from f16's, which is far: try {remedy}")
    loaded = []
    if name := gguf_of(run):
        loaded.append((f"-m {_quoted(run.gguf / name)}", run.modelfile, ""))
    if adapter := record.ggufs.get(ADAPTER_KIND):
        base, file = run.gguf / adapter["base"]["file"], run.gguf / adapter["file"]
        loaded.append((f"-m {_quoted(base)} --lora {_quoted(file)}", run.adapter_modelfile, "-adapter"))
    trained = run.read()
    prompt, asked = shlex.quote(trained["system_prompt"]), shlex.quote(example_question(trained))
    for files, modelfile, ending in loaded:
        print(f"\nTry {'the adapter on its base' if ending else 'it'}:")
        print(f"{_quoted(program('llama-cli'))} {files} --temp 0 -st -sys {prompt} -p {asked}")
        print(f"{_quoted(program('llama-server'))} {files} --port 8080      # then open http://localhost:8080")
        print(f"ollama create {ollama_name(run.path.resolve().name + ending)} -f {_quoted(modelfile)}")
    if loaded:
        print(f"\nScore all of it:\n{evaluation_command(run.path, trained['settings'])}")


def _about(entry: dict[str, Any]) -> str:
    size = f"{entry['bytes'] / 1e6:.0f} MB"
    kind = (
        f", stands on {entry['base']['file']}"
        if "base" in entry
        else f", {entry['bits_per_weight']:.2f} bits per weight"
    )
    divergence = entry["mean_kl_from_f16"]
    from_f16 = (
        f", {divergence:.4f} nats from {'merged in f16' if 'base' in entry else 'f16'}"
        if divergence is not None
        else ""
    )
    return size + kind + from_f16 + (", by an importance matrix" if "imatrix" in entry else "")


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
