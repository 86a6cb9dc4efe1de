#!/usr/bin/env python3
"""Merge a trained adapter into the 16-bit weights of its base, and export GGUF files for llama.cpp and Ollama.

    python merge_and_export.py runs/NAME --gguf q8_0 q4_k_m

Merges into the 16-bit base, never into the 4-bit one that training held in memory: 4-bit weights are rounded, and a
merge would keep the rounding. Writes runs/NAME/merged/ and runs/NAME/gguf/NAME.<type>.gguf, and prints the llama.cpp
commands to try them. The GGUF files are made from the merged folder, so both hold the same weights.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
from pathlib import Path

from kit import llama_cpp
from kit.command_line import Parser, nearest
from kit.errors import Problems, UserError, run_script
from kit.hub import check_model, sixteen_bit_name
from kit.runs import RunFolder


def main() -> None:
    args = read_arguments()
    run = RunFolder(args.run_folder)
    check_everything(run, args.gguf)
    os.environ["UNSLOTH_LLAMA_CPP_PATH"] = str(llama_cpp.ensure())  # before Unsloth is imported

    from kit import hardware

    dtype = hardware.choose(hardware.detect(), vllm="off").dtype
    merge(run, dtype)
    export_gguf(run, dtype, args.gguf)
    print_commands(run, args.gguf)


def read_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help="what train_lora.py wrote")
    parser.add_argument("--gguf", nargs="+", default=["q8_0"], type=str.lower, metavar="TYPE",
                        help="GGUF types, such as f16 q8_0 q4_k_m (default: q8_0)")  # fmt: skip
    return parser.parse()


def check_everything(run: RunFolder, quantizations: list[str]) -> None:
    """Refuse what cannot be done, before anything is built, loaded or written.

    Raises:
        UserError: with all that is wrong.
    """
    problems = Problems()
    if problems.catch(run.read):
        problems.catch(check_adapter, run)
        problems.catch(check_model, sixteen_bit_name(run.base_model()), option="the base model")
    for name in quantizations:
        if name not in llama_cpp.GGUF_TYPES:
            hint = nearest(name, llama_cpp.GGUF_TYPES) or f", choose from {' '.join(llama_cpp.GGUF_TYPES)}"
            problems.found.append(f"--gguf: there is no type {name!r}{hint}")
    problems.raise_any()


def check_adapter(run: RunFolder) -> None:
    """Refuse a run that has not finished."""
    if not (run.adapter / "adapter_model.safetensors").is_file():
        raise UserError(f"{run.adapter} holds no adapter: finish training with train_lora.py --output-dir {run.path}")


def merge(run: RunFolder, dtype: str) -> None:
    """Write merged/, under a temporary name until it is whole."""
    from kit.model import save_merged

    print(f"merging {run.adapter} into the 16-bit weights of {run.base_model()}")
    partial = run.path / "merged.partial"
    shutil.rmtree(partial, ignore_errors=True)
    save_merged(run.adapter, run.base_model(), dtype, partial)
    shutil.rmtree(run.merged, ignore_errors=True)
    partial.rename(run.merged)


def export_gguf(run: RunFolder, dtype: str, quantizations: list[str]) -> None:
    """Write gguf/NAME.<type>.gguf for each type, under a temporary name until all are whole."""
    from kit.model import save_gguf

    print(f"exporting GGUF: {', '.join(quantizations)}")
    partial = run.path / "gguf.partial"
    shutil.rmtree(partial, ignore_errors=True)
    written = save_gguf(run.merged, dtype, quantizations, llama_cpp.llama_cpp_folder(), partial)
    run.gguf.mkdir(exist_ok=True)
    for quantization, file in written.items():
        file.rename(run.gguf_file(quantization))
    shutil.rmtree(partial)


def print_commands(run: RunFolder, quantizations: list[str]) -> None:
    """What was written, and the exact commands to try it."""
    trained = run.read()
    print(f"\n{run.merged}/")
    for quantization in quantizations:
        file = run.gguf_file(quantization)
        print(f"{file} ({file.stat().st_size / 1e6:.0f} MB)")
    gguf = run.gguf_file(quantizations[-1])
    cli, server = (shlex.quote(str(llama_cpp.program(name))) for name in ("llama-cli", "llama-server"))
    prompt = shlex.quote(trained["system_prompt"])
    print(f"\nTry it:\n{cli} -m {gguf} --temp 0 -st -sys {prompt} -p 'Ana has 3 apples and gets 4 more. How many now?'")
    print(f"{server} -m {gguf} --port 8080      # then open http://localhost:8080")
    print(f"\nScore all of it:\npython evaluate.py {run.path}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main)
