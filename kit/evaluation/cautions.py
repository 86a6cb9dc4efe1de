"""CAUTIONS: sentences where a score says another thing than its reader may think, by what was trained and asked.

They are told before anything answers, and stay with the scores: on their page, in the report, in the model card.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from kit.cli.errors import UserError
from kit.evaluation.answering import EvaluationSettings
from kit.evaluation.call import DEFAULT_DATASET
from kit.storage.atomic import file_hash
from kit.storage.run_folder import RunFolder, run_folder_of
from kit.storage.weight_files import ADAPTER_WEIGHTS
from kit.task.questions import Row, fingerprint
from kit.task.task import is_task_of, task_in_use
from kit.task.trained_questions import asked_in_training

_OF_A_RUN = ("system_prompt", "decimal_mark", "max_completion_length")  # what a run's answers depend on


def cautions(args: argparse.Namespace, questions: list[Row], settings: EvaluationSettings) -> dict[str, list[str]]:
    """What the reader of the scores is to know of each run that is named, for the whole table is asked alike.

    Args:
        args: the call.
        questions: that are asked.
        settings: how they are put; the task in use is theirs.

    Returns:
        Sentences by the name of the run's folder; none where there is nothing to say.
    """
    named = [run_folder_of(Path(path)) for path in (*args.paths, args.baseline) if path]
    runs = list({run.path.resolve(): run for run in named if run}.values())
    said = {_name(run): _of_questions(run, args, questions) for run in runs}
    for number, run in enumerate(runs):
        said[_name(run)] += _of_settings(run, settings, is_first=number == 0)
    return said


def of_exports(paths: Iterable[str]) -> list[str]:
    """A sentence for each run that was trained further since the export of which one of the ``paths`` is a part."""
    exported: dict[Path, RunFolder] = {}
    for path in paths:
        run = run_folder_of(Path(path))
        if run and run.holds_as_export(Path(path)):
            exported[run.path.resolve()] = run
    return [
        f"{_name(run)} was trained further since its export, of which its merged and GGUF files are: "
        "merge_and_export.py makes them anew"
        for run in exported.values()
        if (before := _exported_adapter(run))
        and (not run.has_adapter or before != file_hash(run.adapter / ADAPTER_WEIGHTS))
    ]


def _exported_adapter(run: RunFolder) -> str | None:
    """The hash of the adapter that an export was made from, where it says so."""
    try:
        return (run.exported().get("merged") or {}).get("adapter_sha256")
    except UserError:
        return None


def called(dataset: str) -> str:
    """A data set as people are told of it: a file by its name."""
    return Path(dataset).name if Path(dataset).exists() else dataset


def _name(run: RunFolder) -> str:
    return run.path.resolve().name


def _of_questions(run: RunFolder, args: argparse.Namespace, questions: list[Row]) -> list[str]:
    trained = run.read()
    used, asked = str(trained["settings"].get("dataset", args.dataset)), called(args.dataset)
    said = []
    seen = asked_in_training(run, questions)
    if trained.get("data", {}).get("fingerprint") == fingerprint(questions):  # all of its data, also those set aside
        seen = len(questions)
    if seen:
        which = f"{asked} holds the questions" if seen == len(questions) else (
            f"{seen} of the {len(questions)} questions of {asked} are ones")  # fmt: skip
        said.append(f"{which} that {_name(run)} was trained on: name new ones with --dataset for a score")
    if args.dataset == DEFAULT_DATASET != used:
        said.append(f"{_name(run)} was trained on {called(used)}, and asked {asked}'s {args.split} questions: "
                    "--dataset names others")  # fmt: skip
    return said


def _of_settings(run: RunFolder, settings: EvaluationSettings, is_first: bool) -> list[str]:
    """What is asked otherwise than in training: of the first run as the call says, of the others as the first is."""
    trained, asked = run.read(), settings.recorded()
    own = trained["settings"] | {"system_prompt": trained.get("system_prompt")}
    differs = [name for name in _OF_A_RUN if own.get(name) not in (None, asked[name])]
    differs += [] if is_task_of(trained, task_in_use()) else ["task"]
    if not differs:
        return []
    said = f"{_name(run)} was trained with another {' and '.join(differs)}"
    if is_first:
        return [f"{said} than it is asked with"]
    return [
        f"{said}, and is asked here as all others are: to see how good it is, score it alone, and set the two side by "
        "side with --compare"
    ]
