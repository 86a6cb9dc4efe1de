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
from pathlib import Path
from typing import Any

from kit import ranks
from kit.cli.command_line import Parser, positive_int, positive_number
from kit.cli.errors import Problems, UserError, first_line, run_script
from kit.evaluation.answering import EvaluationSettings, answer_questions, room_for_prompts
from kit.evaluation.score_tables import print_comparisons, print_scores
from kit.evaluation.scores import row_of
from kit.evaluation.scores_file import compare_files, write_scores
from kit.export.model_card import write_card
from kit.generation.artefacts import Artefact, artefact_at, check_templates, find_artefacts
from kit.generation.engine import Sampling
from kit.generation.open import open_engine, with_or_without_vllm
from kit.generation.runtime import Room, Server
from kit.numbers.reading import DECIMAL_MARKS, use_decimal_mark
from kit.prompts import build_prompt, default_system_prompt
from kit.report.page import write_report
from kit.storage.run_folder import RunFolder, run_folder_of
from kit.task.questions import Row, fingerprint, load_questions
from kit.task.task import DEFAULT, is_task_of, take_task, take_task_of

DEFAULT_MAX_COMPLETION_LENGTH = 512
_OF_A_RUN = ("system_prompt", "decimal_mark", "max_completion_length")  # what a run's answers depend on


def main() -> None:
    ranks.refuse_launcher("evaluate.py")
    args = read_arguments()
    if args.compare:
        print_comparisons(*compare_files(*args.compare))
    elif args.ask:
        ask_one(find_artefacts(args.paths, args.base_4bit, args.base), args.ask, evaluation_settings(args))
    else:
        artefacts, questions, output, settings = check_everything(args)
        rows = with_or_without_vllm(
            settings.vllm, lambda vllm: score(artefacts, questions, replace(settings, vllm=vllm), output)
        )
        source = {"dataset": args.dataset, "split": args.split, "fingerprint": fingerprint(questions)}
        print_scores(write_scores(output, rows, source, settings, baseline_of(args, artefacts)))
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
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="run folder, model folder, adapter folder, .gguf file, or Hub id"
    )
    parser.add_argument(
        "--dataset", default="openai/gsm8k",
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
    parser.add_argument("--task", metavar="NAME|FILE", help="what is right, and the prompt (default: as in training, "
                        f"else {DEFAULT})")  # fmt: skip
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave out rows that cannot be used, with a count")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N questions")
    parser.add_argument("--baseline", metavar="PATH", help="what to compare with (default: the run's base model)")
    parser.add_argument("--samples", type=positive_int, default=0, metavar="K",
                        help="also K sampled replies a question: adds pass@k and maj@k")  # fmt: skip
    parser.add_argument(
        "--temperature", type=positive_number, default=1.0, metavar="T", help="of the samples (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N", help="prompts in a batch (default: %(default)s)"
    )
    parser.add_argument("--max-completion-length", type=positive_int, metavar="N",
                        help=f"tokens (default: as in training, else {DEFAULT_MAX_COMPLETION_LENGTH})")  # fmt: skip
    parser.add_argument("--base", metavar="PATH",
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
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="where scores.json and transcripts/ go")
    parser.add_argument("--ask", metavar="QUESTION", help="put one question to one artefact and print the reply")
    parser.add_argument("--compare", nargs=2, type=Path, metavar="SCORES",
                        help="print the paired comparison of two scores.json; nothing is run")  # fmt: skip
    args = parser.parse()
    if bool(args.paths) == bool(args.compare):
        raise UserError("name what to score (a run folder, say runs/NAME), or two scores.json with --compare")
    return args


def check_everything(args: argparse.Namespace) -> tuple[list[Artefact], list[Row], Path, EvaluationSettings]:
    """What answers, what is asked, where the results go, and how the questions are put.

    Raises:
        UserError: with all that is wrong, before anything is loaded or written.
    """
    problems = Problems()
    settings = problems.catch(evaluation_settings, args)
    artefacts = problems.catch(
        find_artefacts, [*args.paths, *([args.baseline] if args.baseline else [])], args.base_4bit, args.base
    )
    alone = problems.catch(find_artefacts, [args.baseline], args.base_4bit, args.base) if args.baseline else None
    if artefacts and alone and len(alone) != 1:
        problems.found.append(f"--baseline {args.baseline} holds several artefacts: name one, such as its adapter")
    columns = (args.question_column, args.answer_column)
    questions = settings and problems.catch(  # without a task nobody knows what an answer is
        load_questions, args.dataset, args.split, *columns, limit=args.limit,
        config=args.dataset_config, skip_bad_rows=args.skip_bad_rows, split_of_a_file="test",
    )  # fmt: skip
    served = problems.catch(find_artefacts, args.paths, args.base_4bit, args.base) if args.server else None
    if served and len(served) != 1:
        problems.found.append(
            f"--server answers for one artefact, and {' '.join(args.paths)} holds {len(served)}: name the one that it "
            f"serves, such as {served[-1].path}"
        )
    output = problems.catch(output_folder, args)
    problems.catch(check_templates, artefacts or [])
    problems.raise_any()
    if (run := run_folder(args)) and not run.has_adapter:
        print(f"{run.path} has no adapter: its training has not finished, the same train_lora.py command continues it")
    say_what_others_were_trained_with(args, settings)
    try:
        RunFolder(output).transcripts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{output} cannot be written to ({first_line(error)}): name a folder with --output-dir"
        ) from None
    return artefacts, questions, output, settings


def run_folder(args: argparse.Namespace) -> RunFolder | None:
    """The run folder that the paths belong to, if any does."""
    return next((run for path in args.paths if (run := run_folder_of(Path(path)))), None)


def baseline_of(args: argparse.Namespace, artefacts: list[Artefact]) -> str | None:
    """The name of the row that ``--baseline`` names."""
    if not args.baseline:
        return None
    (alone,) = find_artefacts([args.baseline], args.base_4bit, args.base)
    return artefact_at(alone.path, artefacts).name


def say_what_others_were_trained_with(args: argparse.Namespace, settings: EvaluationSettings) -> None:
    """All rows of a table are asked alike: a sentence for each further run that was trained with something else."""
    named = [run_folder_of(Path(path)) for path in (*args.paths, args.baseline) if path]
    _, *others = {run.path.resolve(): run for run in named if run}.values() or [None]
    asked = settings.recorded()
    for run in filter(None, others):
        trained = run.read()
        own = trained["settings"] | {"system_prompt": trained.get("system_prompt")}
        differs = [name for name in _OF_A_RUN if own.get(name) not in (None, asked[name])]
        if differs:
            print(
                f"{run.path} was trained with another {' and '.join(differs)}, and is asked here as all others are: to "
                "see how good it is, score it alone, and set the two side by side with --compare"
            )


def evaluation_settings(args: argparse.Namespace) -> EvaluationSettings:
    """The training's task, prompt, decimal mark and lengths where a run folder says them, else the kit's own.

    The task is in use from here on.
    """
    run = run_folder(args)
    trained = run.read() if run else {"settings": {}}
    mark = args.decimal_mark or trained["settings"].get("decimal_mark", EvaluationSettings.decimal_mark)
    use_decimal_mark(mark)  # a task's own example is read by it
    task = take_task(args.task) if args.task else take_task_of(trained, run.path if run else None)
    is_trained_with = run is not None and is_task_of(trained, task)
    if run and not is_trained_with:
        print(f"the task is another than in training: asked and judged as {task.file} says")
    length = args.max_completion_length or trained["settings"].get(
        "max_completion_length", DEFAULT_MAX_COMPLETION_LENGTH
    )
    return EvaluationSettings(
        system_prompt=(is_trained_with and trained.get("system_prompt")) or default_system_prompt(),
        task=task.label,
        decimal_mark=mark,
        max_completion_length=length,
        max_prompt_length=trained["settings"].get("max_prompt_length", EvaluationSettings.max_prompt_length),
        batch_size=args.batch_size,
        base_4bit=args.base_4bit,
        samples=args.samples,
        temperature=args.temperature,
        seed=args.seed,
        vllm=args.vllm,
        dtype=args.dtype,
        server=Server(args.server, args.server_model) if args.server else None,
    )


def output_folder(args: argparse.Namespace) -> Path:
    """Where the results go: --output-dir, else the run folder of the first path that has one."""
    run = run_folder(args)
    output = args.output_dir or (run.path if run else None)
    if output is None:
        raise UserError(f"{args.paths[0]} lies in no run folder: say where the scores go with --output-dir DIR")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output-dir {output} is a file: name a folder")
    return output


def ask_one(artefacts: list[Artefact], question: str, settings: EvaluationSettings) -> None:
    """Put one question to one artefact and print its reply."""
    if len(artefacts) != 1:
        raise UserError(
            f"--ask wants one artefact, not {len(artefacts)}: name one of {', '.join(a.path for a in artefacts)}"
        )
    check_templates(artefacts)
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
