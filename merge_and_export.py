#!/usr/bin/env python3
"""Merge a trained adapter into the 16-bit weights of its base, and export GGUF files for llama.cpp and Ollama.

    python merge_and_export.py runs/NAME --gguf q4_k_m q8_0
    python merge_and_export.py runs/NAME --gguf q6_k --only-gguf      another type, from merged/ as it is
    python merge_and_export.py runs/NAME --gguf iq3_xxs --imatrix     few bits, where the run's own answers need them
    python merge_and_export.py runs/NAME --adapter-gguf               the adapter alone, on a GGUF of the base
    python merge_and_export.py runs/NAME --check                      the checks alone, on what the folder holds
    python merge_and_export.py runs/NAME --push-to-hub OWNER/NAME     afterwards, upload it (private)
    python merge_and_export.py ADAPTER --base PATH --output-dir DIR   an adapter of another tool, or a checkpoint

Merges into the 16-bit base, never into the 4-bit one that training held in memory: 4-bit weights are rounded, and a
merge would keep the rounding. Writes runs/NAME/merged/, runs/NAME/gguf/NAME.<type>.gguf with an Ollama Modelfile, a
model card, and export.json with the numbers of every check. What fails a check is refused: exit status 3, and nothing
under its final name; of several GGUF types those that pass are kept.
"""

from __future__ import annotations

import argparse
import os
from itertools import chain
from pathlib import Path

from kit import ranks
from kit.cli.command_line import Parser, at_home, home_path, nearest
from kit.cli.errors import Problems, UserError, run_script
from kit.evaluation.run_scores import drop_outdated_rows
from kit.export.adapter_gguf import base_gguf_of, check_adapter_gguf
from kit.export.adoption import adopt, check_adoption
from kit.export.calibration import QUESTIONS, check_calibration
from kit.export.checks.check import ExportRefused
from kit.export.evidence import evidence_of
from kit.export.ggufs import check_ggufs, make_ggufs
from kit.export.hub_upload import check_repository, push
from kit.export.merge import check_again, merge, merged_as_it_is
from kit.export.model_card import write_card
from kit.export.modelfile import remove_those_of_nothing, write_adapter_modelfile, write_modelfile
from kit.export.record import ExportRecord
from kit.export.staging import check_disk, staging
from kit.export.summary import print_summary
from kit.llama_cpp import build as llama_cpp
from kit.llama_cpp.gguf import NEED_IMATRIX
from kit.llama_cpp.imatrix import UNCHANGED
from kit.models.positions import check_positions
from kit.report.page import write_report
from kit.storage import run_lock
from kit.storage.hub import check_base, fetch, local_folder
from kit.storage.run_folder import ADAPTER_KIND, RunFolder
from kit.storage.weight_files import is_adapter


def main() -> None:
    ranks.refuse_launcher("merge_and_export.py")
    args = read_arguments()
    run = check_everything(args)
    llama_cpp.ensure()
    if args.imatrix:
        llama_cpp.program("llama-imatrix")  # a llama.cpp of the user's own may lack it
    fetch(run.merge_base())
    check_positions(local_folder(run.merge_base()), run.merge_base())
    if run.exists():  # a new one is there at once, with all that it holds
        run_lock.take(run.path)
    if is_foreign(args.path):
        adopt(args.path, run)
    run_lock.take(run.path)
    record, evidence = ExportRecord(run), evidence_of(run)
    refused: dict[str, list[str]] = {}
    with staging(run) as scratch:
        if args.check:
            check_ggufs(check_again(record, evidence), record, evidence, scratch)
        else:
            merged = merged_as_it_is(record, evidence) if args.only_gguf else merge(record, evidence, scratch)
            refused = make_ggufs(merged, kinds_of(args), record, evidence, scratch, args.imatrix)
        record.write()
    if not args.check:
        write_modelfiles(run, args, [*refused])
    drop_outdated_rows(run)
    write_card(run, args.push_to_hub)
    if run.report_file.exists():
        write_report(run)
    print_summary(run, record)
    if refused:
        unsent = ["so that nothing was uploaded: name the types that have passed"] if args.push_to_hub else []
        raise ExportRefused(*chain.from_iterable(refused.values()), *unsent)
    if args.push_to_hub:
        print(push(run, args.push_to_hub, private=not args.public))


def read_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("path", type=home_path, metavar="PATH",
                        help="run folder that train_lora.py wrote, or an adapter's folder")  # fmt: skip
    parser.add_argument(
        "--base", type=at_home, metavar="PATH", help="folder or Hub id of the base (default: as recorded)"
    )
    parser.add_argument("--output-dir", type=home_path, metavar="DIR", help="run folder that an adapter gets, new")
    parser.add_argument("--gguf", nargs="+", type=str.lower, metavar="TYPE",
                        help="GGUF types, such as f16 q8_0 q4_k_m (default: q8_0; none with --adapter-gguf)",
                        )  # fmt: skip
    parser.add_argument("--adapter-gguf", action="store_true",
                        help="the adapter alone as a GGUF, and an f16 GGUF of the base that it stands on")  # fmt: skip
    parser.add_argument("--imatrix", action="store_true",
                        help="round by an importance matrix, which q2_k_s, iq3_xs and less need; it is made from "
                        f"the run's last {QUESTIONS} training questions, each with its prompt and the model's own last "
                        "reply, in a few minutes for 0.5B on a processor")  # fmt: skip
    parser.add_argument("--only-gguf", action="store_true", help="start from merged/ as it is")
    parser.add_argument("--check", action="store_true", help="export nothing, pass what is there by the checks")
    parser.add_argument("--push-to-hub", metavar="REPO", help="upload the export to OWNER/NAME, private")
    parser.add_argument("--public", action="store_true", help="with --push-to-hub: for everybody to see")
    args = parser.parse()
    args.gguf = args.gguf or ([] if args.adapter_gguf else ["q8_0"])
    return args


def kinds_of(args: argparse.Namespace) -> list[str]:
    """What is to be in gguf/: types of the merged weights, and the adapter alone."""
    return [*args.gguf, *([ADAPTER_KIND] if args.adapter_gguf else [])]


def check_everything(args: argparse.Namespace) -> RunFolder:
    """The run folder that the export goes into; refuses what cannot be done, before anything is built or written.

    Raises:
        UserError: with all that is wrong.
    """
    problems = Problems()
    run = RunFolder(args.path, args.base)
    if is_foreign(args.path):
        run = problems.catch(check_adoption, args.path, args.base, args.output_dir)
        if args.check or args.only_gguf:
            problems.found.append(f"{args.path} is an adapter, which has no export yet: leave out --check, --only-gguf")
    elif problems.catch(run.read):
        problems.catch(check_parts, run, args)
        problems.catch(check_base, run.base_model(), "--base" if args.base else "the base model")
    for name in args.gguf:
        problems.catch(check_type, name, args.imatrix)
    if args.imatrix:
        problems.catch(check_imatrix, run, args)
    if args.adapter_gguf and run:
        problems.catch(check_adapter_option, run, args)
    if args.push_to_hub:
        problems.catch(check_repository, args.push_to_hub)
    elif args.public:
        problems.found.append("--public says who sees an upload, and nothing is uploaded: add --push-to-hub OWNER/NAME")
    problems.raise_any()
    if not args.check:
        check_disk(run, kinds_of(args), with_merge=not args.only_gguf)
    return run


def is_foreign(path: Path) -> bool:
    """Is this an adapter, and no run folder?"""
    return not RunFolder(path).exists() and path.is_dir() and is_adapter(path)


def check_parts(run: RunFolder, args: argparse.Namespace) -> None:
    """Refuse a run that lacks what the export starts from, or has what a file that is asked for cannot hold."""
    if args.output_dir:
        raise UserError(f"--output-dir is for an adapter's folder: the export of {run.path} goes into {run.path}")
    if args.check or args.only_gguf:
        if not any(run.merged.glob("*.safetensors")):
            raise UserError(f"{run.merged} holds no weights: run without {'--check' if args.check else '--only-gguf'}")
    elif not run.has_adapter:
        raise UserError(
            f"{run.adapter} holds no adapter: let the same train_lora.py command finish the training, or end it "
            f"where it is with train_lora.py --output-dir {run.path} --finish"
        )
    elif run.adapter_changes_nothing:
        raise UserError(
            f"{run.path}: training made the base's held-out answers worse, so its adapter is the untrained one and "
            "there is nothing to export: train in another way (the alarm says what to try), or take the last step all "
            f"the same with train_lora.py --output-dir {run.path} --finish --keep last"
        )


def check_type(name: str, with_imatrix: bool) -> None:
    """Refuse a GGUF type that llama-quantize does not know, or cannot make from weights alone."""
    if name not in llama_cpp.GGUF_TYPES:
        hint = nearest(name, llama_cpp.GGUF_TYPES) or f", choose from {' '.join(llama_cpp.GGUF_TYPES)}"
        raise UserError(f"--gguf: there is no type {name!r}{hint}")
    if name in NEED_IMATRIX and not with_imatrix:
        raise UserError(
            f"--gguf {name}: at so few bits llama-quantize needs an importance matrix, without one the model would be "
            "useless: add --imatrix, or choose q2_k, q3_k_m or q4_k_m"
        )


def check_imatrix(run: RunFolder | None, args: argparse.Namespace) -> None:
    """Refuse an importance matrix that nothing would be made with, or that cannot be made."""
    if args.check:
        raise UserError("--imatrix is for making GGUF files, and --check makes none: leave out one of the two")
    if not set(args.gguf) - {*UNCHANGED}:
        made = " ".join(args.gguf) or "the adapter's GGUF"
        raise UserError(
            f"--imatrix changes nothing in {made}: leave it out, or add a smaller type, such as --gguf q4_k_m iq3_xxs"
        )
    if run:
        check_calibration(run)


def check_adapter_option(run: RunFolder, args: argparse.Namespace) -> None:
    """Refuse a GGUF of an adapter that is none or cannot be one."""
    if args.check:
        raise UserError("--adapter-gguf is for making a GGUF, and --check makes none: leave out one of the two")
    if is_foreign(args.path):
        check_adapter_gguf(args.path, run)
    elif run.has_adapter or args.only_gguf:
        check_adapter_gguf(run.adapter, run)


def write_modelfiles(run: RunFolder, args: argparse.Namespace, refused: list[str]) -> None:
    """A Modelfile for the last type that was asked for and has passed, and one for the adapter alone."""
    if passed := [kind for kind in args.gguf if kind not in refused]:
        write_modelfile(run, passed[-1])
    if args.adapter_gguf and ADAPTER_KIND not in refused and (base := base_gguf_of(run)):
        write_adapter_modelfile(run, base)
    remove_those_of_nothing(run)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main, "Nothing was left half-written: run the same command again.")
