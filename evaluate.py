#!/usr/bin/env python3
"""Score models on held-out questions: base, adapter, merged and GGUF, same questions, same prompt, same grader.

    python evaluate.py runs/NAME                          all that a run folder holds, on GSM8K's test questions
    python evaluate.py runs/NAME/adapter --limit 200      one artefact, the first 200 questions
    python evaluate.py runs/NAME --samples 8              adds pass@k and maj@k of 8 samples a question
    python evaluate.py ADAPTER --base PATH --output-dir DIR     an adapter of another tool, on a base that moved
    python evaluate.py runs/NAME/merged --server http://localhost:8000      `vllm serve runs/NAME/merged` answers for it
    python evaluate.py --compare runs/A/scores.json runs/B/scores.json      two runs side by side, nothing is run
    python evaluate.py runs/NAME/gguf/NAME.q8_0.gguf --ask "Ana has 3 apples and gets 4 more. How many now?"

A row says how many greedy answers are right by the strict XML reading (the one that the rewards use) and by the number
that the reply points to or ends with, with 95 % intervals, and how many replies are in format. Writes scores.json and
transcripts/<row>.jsonl into the run folder, or into --output-dir. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from kit import ranks
from kit.cli.command_line import Parser, at_home, home_path, positive_int, positive_number
from kit.cli.errors import UserError, run_script
from kit.evaluation.answering import EvaluationSettings, answer_questions, room_for_prompts
from kit.evaluation.call import (
    DEFAULT_DATASET,
    DEFAULT_MAX_COMPLETION_LENGTH,
    baseline_of,
    check_everything,
    evaluation_settings,
    run_folder,
)
from kit.evaluation.cautions import cautions, of_exports
from kit.evaluation.failures import explained
from kit.evaluation.score_tables import print_comparisons, print_scores
from kit.evaluation.scores import row_of
from kit.evaluation.scores_file import compare_files, write_scores
from kit.export.model_card import write_card
from kit.generation.artefacts import Artefact, check_askable, find_artefacts
from kit.generation.engine import Sampling
from kit.generation.open import open_engine, with_or_without_vllm
from kit.generation.runtime import Room
from kit.numbers.reading import DECIMAL_MARKS
from kit.prompts import build_prompt
from kit.report.page import write_report
from kit.storage.run_folder import RunFolder
from kit.task.questions import Row, fingerprint
from kit.task.task import DEFAULT


def main() -> None:
    ranks.refuse_launcher("evaluate.py")
    args = read_arguments()
    if args.compare:
        print_comparisons(*compare_files(*args.compare))
    elif args.ask:
        ask_one(find_artefacts(args.paths, args.base_4bit, args.base), args.ask, evaluation_settings(args))
    else:
        artefacts, questions, output, settings = check_everything(args)
        known = cautions(args, questions, settings)
        for caution in (*chain(*known.values()), *of_exports(artefact.path for artefact in artefacts)):
            print(caution)
        with explained(output, settings):
            rows = with_or_without_vllm(
                settings.vllm, lambda vllm: score(artefacts, questions, replace(settings, vllm=vllm), output)
            )
        source = {"dataset": args.dataset, "split": args.split, "fingerprint": fingerprint(questions)}
        print_scores(write_scores(output, rows, source, settings, baseline_of(args, artefacts), known))
        if (run := run_folder(args)) and run.path == output:
            if run.export_file.exists():
                write_card(run)
            print(write_report(run))
        print(f"{RunFolder(output).scores_file}, {RunFolder(output).transcripts}/")


def score(
    artefacts: list[Artefact], questions: list[Row], settings: EvaluationSettings, output: Path
) -> list[dict[str, Any]]:
    """A row of scores for each artefact; a server answers for the first."""
    asked = [settings, *[replace(settings, server=None)] * (len(artefacts) - 1)]
    runtimes = [each.runtime_of(artefact) for artefact, each in zip(artefacts, asked, strict=True)]  # before any loads
    return [
        row_of(answer_questions(artefact, runtime, questions, each, output))
        for artefact, runtime, each in zip(artefacts, runtimes, asked, strict=True)
    ]


def read_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("paths", nargs="*", type=at_home, metavar="PATH",
                        help="run folder, model folder, adapter folder, .gguf file, or Hub id")  # fmt: skip
    parser.add_argument(
        "--dataset", type=at_home, default=DEFAULT_DATASET,
        help="Hub id or file (JSON Lines or array, CSV, Parquet) of the questions (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--dataset-config", default="", metavar="NAME", help="which configuration of a Hub data set")
    parser.add_argument("--split", default="test",
                        help="which split of a Hub data set; test[:200] is a part, of files too (default: %(default)s)",
                        )  # fmt: skip
    parser.add_argument("--question-column", default="question", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--answer-column", default="answer", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--decimal-mark", choices=DECIMAL_MARKS,
                         help="of answers and replies (default: as in training, else point)")  # fmt: skip
    parser.add_argument("--task", type=at_home, metavar="NAME|FILE",
                        help=f"what is right, and the prompt (default: as in training, else {DEFAULT})")  # fmt: skip
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave out rows that cannot be used, with a count")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N questions")
    parser.add_argument(
        "--baseline", type=at_home, metavar="PATH", help="what to compare with (default: the run's base model)"
    )
    parser.add_argument("--samples", type=positive_int, default=0, metavar="K",
                        help="also K sampled replies a question: adds pass@k and maj@k")  # fmt: skip
    parser.add_argument("--temperature", type=positive_number, metavar="T", help="of the samples (default: 1.0)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N", help="prompts in a batch (default: %(default)s)"
    )
    parser.add_argument("--max-completion-length", type=positive_int, metavar="N",
                        help=f"tokens (default: as in training, else {DEFAULT_MAX_COMPLETION_LENGTH})")  # fmt: skip
    parser.add_argument("--base", type=at_home, metavar="PATH",
                        help="folder or Hub id that adapters stand on (default: as they record it); a GGUF that an "
                        "adapter's GGUF stands on")  # fmt: skip
    parser.add_argument("--base-4bit", action="store_true", help="run adapters on the 4-bit base, as they were trained")
    parser.add_argument("--vllm", choices=["auto", "off", "require"], default="auto",
                        help="vLLM answers where it can be had (default: %(default)s)")  # fmt: skip
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto",
                        help="of Hugging Face weights; on a processor bfloat16 is faster, and decides near-ties "
                        "otherwise in each row (default: the machine's, float32 on a processor)")  # fmt: skip
    parser.add_argument("--server", metavar="URL",
                        help="a running server with OpenAI's chat API (vllm serve PATH, llama-server, Ollama) answers "
                        "for PATH")  # fmt: skip
    parser.add_argument("--server-model", default="", metavar="NAME", help="which of its models is PATH")
    parser.add_argument("--output-dir", type=home_path, metavar="DIR", help="where scores.json and transcripts/ go")
    parser.add_argument("--ask", metavar="QUESTION", help="put one question to one artefact and print the reply")
    parser.add_argument("--compare", nargs=2, type=home_path, metavar="SCORES",
                        help="print the paired comparison of two scores.json; nothing is run")  # fmt: skip
    args = parser.parse()
    if bool(args.paths) == bool(args.compare):
        raise UserError("name what to score (a run folder, say runs/NAME), or two scores.json with --compare")
    if args.temperature and not args.samples:
        instead = "leave it out" if args.ask else "add --samples K, or leave it out"
        raise UserError(f"--temperature is of samples, and replies are greedy without: {instead}")
    if args.server_model and not args.server:
        raise UserError("--server-model names a model of a server: add --server URL, or leave it out")
    args.temperature = args.temperature or 1.0
    return args


def ask_one(artefacts: list[Artefact], question: str, settings: EvaluationSettings) -> None:
    """Put one question to one artefact and print its reply."""
    if len(artefacts) != 1:
        raise UserError(
            f"--ask wants one artefact, not {len(artefacts)}: name one of {', '.join(a.path for a in artefacts)}"
        )
    check_askable(artefacts, served=artefacts[0].path if settings.server else "")
    prompt = build_prompt(question, settings.system_prompt)

    def ask(vllm: str) -> str:
        runtime = replace(settings, vllm=vllm).runtime_of(artefacts[0])
        room = Room(room_for_prompts([question], settings), settings.max_completion_length, batch_size=1)
        with open_engine(artefacts[0], runtime, room) as engine:
            ((_, reply),) = next(engine.generate([prompt], Sampling(settings.max_completion_length)))
        return reply.text

    print(with_or_without_vllm(settings.vllm, ask))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main, "What has been answered is kept: the same command goes on from there.")
