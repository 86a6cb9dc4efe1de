"""What a call of evaluate.py asks for: what answers, what is asked and how, where results go. Nothing answers yet."""

from __future__ import annotations

import argparse
from pathlib import Path

from kit.cli.errors import Problems, UserError, first_line
from kit.evaluation.answering import EvaluationSettings
from kit.generation.artefacts import Artefact, artefact_at, check_askable, find_artefacts
from kit.generation.runtime import Server
from kit.numbers.reading import use_decimal_mark
from kit.prompts import default_system_prompt
from kit.storage.run_folder import RunFolder, run_folder_of
from kit.task.questions import Row, load_questions
from kit.task.task import is_task_of, take_task, take_task_of

DEFAULT_DATASET = "openai/gsm8k"
DEFAULT_MAX_COMPLETION_LENGTH = 512


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
    output = problems.catch(_output_folder, args)
    problems.catch(check_askable, artefacts or [], served[0].path if served else "")
    problems.raise_any()
    if (run := run_folder(args)) and not run.has_adapter:
        print(f"{run.path} has no adapter: its training has not finished, the same train_lora.py command continues it")
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
    if is_trained_with and trained.get("task", {}).get("source", task.source) != task.source:
        print(f"{task.file} was worded otherwise in training: judged as it says now")
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


def _output_folder(args: argparse.Namespace) -> Path:
    """Where the results go: --output-dir, else the run folder of the first path that has one."""
    run = run_folder(args)
    output = args.output_dir or (run.path if run else None)
    if output is None:
        raise UserError(f"{args.paths[0]} lies in no run folder: say where the scores go with --output-dir DIR")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output-dir {output} is a file: name a folder")
    if run and RunFolder(output).exists() and output.resolve() != run.path.resolve():
        raise UserError(
            f"--output-dir {output} is another run than {run.path}, whose scores would stand there as its own: name a "
            "folder that is no run, or leave it out"
        )
    return output
