#!/usr/bin/env python3
"""Fine-tune a small language model with GRPO on grade-school maths, or on a task of your own, on one consumer GPU.

    python train_lora.py                                             Qwen2.5-0.5B on GSM8K, 250 steps
    python train_lora.py --dataset my.jsonl --output-dir runs/mine   your own questions
    python train_lora.py --task my_task.py --dataset my.jsonl --output-dir runs/mine      whose answers are no number
    python train_lora.py --plan                                      does it fit here, card or processor? Trains nothing
    python train_lora.py --plan --gpu t4                             does it fit a card that is not here?
    python train_lora.py --output-dir runs/mine --finish             stop now with what there is
    accelerate launch --multi_gpu --num_processes 2 train_lora.py    the same run on two cards, each with half of a step

GRPO: for each question the model writes a group of completions; the rewards score them; the adapter learns to make
the better ones of each group more likely. Left out on purpose: full fine-tuning, a learned reward model.

Unsloth loads the base in 4 bits and attaches LoRA, vLLM writes the completions where there is a CUDA card, TRL's
GRPOTrainer trains. Everything goes into one run folder: run.yaml, checkpoints/, adapter/, metrics.jsonl, samples.jsonl.
The same command again continues a run that was stopped, from its last checkpoint.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from kit import ranks
from kit.checkpointing.alike import check_alike, check_seen_by_all
from kit.checkpointing.failures import explained, same_command
from kit.checkpointing.mirror import Mirror
from kit.checkpointing.resuming import as_recorded, check_run_folder, is_trained, mirror_of, open_run_folder
from kit.cli.errors import Problems, run_script
from kit.cli.signals import StopRequest
from kit.evaluation.next_command import evaluation_command
from kit.evaluation.run_scores import drop_outdated_rows
from kit.models.base_check import check_before_training
from kit.numbers.reading import use_decimal_mark
from kit.planning import hardware
from kit.planning.model_shape import known_shape
from kit.planning.plan import make_plan
from kit.planning.plan_report import print_plan
from kit.planning.step_size import check_enough, with_steps
from kit.report.page import write_report
from kit.settings.knobs import Settings
from kit.settings.reading import read_settings
from kit.storage import run_lock
from kit.storage.hub import check_model, sixteen_bit_name
from kit.storage.run_folder import RunFolder, is_there
from kit.storage.weight_files import is_quantized
from kit.task.held_out import held_out_count, with_held_out
from kit.task.prompt_length import longest_prompt
from kit.task.questions import Row, load_questions
from kit.task.reward_columns import check_arguments
from kit.task.task import Task, take_task, with_task, worked_example
from kit.task.user_rewards import Rewards
from kit.training.finishing import finish_early
from kit.training.training import train
from rewards import choose_rewards


def main() -> None:
    ranks.join()
    with ranks.heard_once():
        settings, problems = ranks.together(lambda: read_settings(None, __doc__))
        if settings.finish:
            ranks.refuse_launcher("train_lora.py --finish")
            finish_now(settings, problems)
        elif settings.plan:
            ranks.together(lambda: plan_now(settings, problems))
        else:
            train_and_report(settings, problems)
    ranks.leave()


def train_and_report(settings: Settings, problems: Problems) -> None:
    settings, questions, rewards = ranks.together(lambda: check_everything(settings, problems))
    check_alike(settings, questions, rewards)
    if ranks.told(is_trained(settings)):
        ranks.by_first(lambda: finish_again(settings))
        return
    longest = longest_of(settings, questions)
    wanted = with_held_out(as_recorded(settings), len(questions))
    machine = hardware.weakest(ranks.gathered(hardware.detect()))
    plan = make_plan(wanted, machine, known_shape(settings.model), longest)
    print(*plan.reasons, sep="\n")
    run, mirror = opened_by_first(plan.settings)
    stop = StopRequest(leaves_at_the_second=ranks.count() == 1, is_heard=ranks.is_first())
    with explained(run, plan.settings):
        reached = train(plan, questions, rewards, run, mirror, stop, write_report)
    if ranks.is_first():
        drop_outdated_rows(run)
        if mirror:  # first: a report that cannot be written must not cost the copy
            mirror.finish()
        write_report(run)
    if not run.has_adapter:
        if ranks.is_first():
            print(f"stopped after step {reached}: {same_command(plan.settings)} goes on from there", file=sys.stderr)
        sys.exit(stop.exit_status)
    print_next_commands(run)


def check_everything(settings: Settings, problems: Problems) -> tuple[Settings, list[Row], Rewards]:
    """The settings, the questions, and the rewards with their weights.

    Raises:
        UserError: with all that is wrong, before anything heavy is loaded and with nothing on disk touched.
    """
    settings, task, questions, aside = asked_for(settings, problems)
    rewards = problems.catch(choose_rewards, settings.rewards)
    problems.catch(worked_example, settings)
    problems.catch(check_model, settings.model)
    if (base := sixteen_bit_name(settings.model)) != settings.model:
        problems.catch(check_model, base, option="--model: the 16-bit weights that merging needs,")
    if questions:
        problems.catch(lambda: check_enough(len(questions) - aside, as_recorded(settings)))
    if questions and rewards:
        problems.catch(check_arguments, rewards[0], questions)
    if task:
        problems.catch(check_run_folder, settings, questions, rewards)
    problems.raise_any()
    check_before_training(settings.model)
    if is_quantized(settings.model):
        print(f"{settings.model} holds quantized weights: merging needs 16-bit ones, which its --base names")
    return settings, questions, rewards


def asked_for(settings: Settings, problems: Problems) -> tuple[Settings, Task | None, list[Row], int]:
    """The settings with what task and data say; the task, the questions, and how many of them are set aside."""
    use_decimal_mark(settings.decimal_mark)
    task = problems.catch(take_task, settings.task)
    if task is None:
        return settings, None, [], 0
    settings = with_task(settings, task)
    if settings.plan and not settings.epochs and not Path(settings.dataset).is_file():
        return settings, task, [], 0  # a plan does without questions, rather than fetch them
    questions = problems.catch(read_questions, settings) or []
    aside = problems.catch(lambda: held_out_count(as_recorded(settings), len(questions))) or 0
    return with_steps(settings, len(questions) - aside), task, questions, aside


def opened_by_first(settings: Settings) -> tuple[RunFolder, Mirror | None]:
    """The run folder, as all processes see it, and its mirror, which the first fills."""
    opened: list[tuple[RunFolder, Mirror | None]] = []

    def open_it() -> None:
        opened.append(open_run_folder(settings))
        drop_outdated_rows(opened[0][0])  # of an adapter that goes on

    ranks.by_first(open_it)
    run, mirror = opened[0] if opened else (RunFolder(Path(settings.output_dir)), None)
    check_seen_by_all(run)
    return run, mirror


def read_questions(settings: Settings) -> list[Row]:
    """The questions that the settings name."""
    return load_questions(
        settings.dataset, settings.split, settings.question_column, settings.answer_column,
        config=settings.dataset_config, skip_bad_rows=settings.skip_bad_rows,
    )  # fmt: skip


def longest_of(settings: Settings, questions: list[Row]) -> int:
    """The longest prompt in tokens."""
    return longest_prompt(settings.model, [row["question"] for row in questions], settings.prompt())


def plan_now(settings: Settings, problems: Problems) -> None:
    """``--plan``: does it fit, and how long does it take?"""
    settings, _, questions, _ = asked_for(settings, problems)
    problems.catch(choose_rewards, settings.rewards)
    problems.catch(worked_example, settings)
    problems.raise_any()
    print_plan(settings, longest_of(settings, questions) if questions else None)


def finish_now(settings: Settings, problems: Problems) -> None:
    """``--finish``: a checkpoint becomes the adapter, or the best step before it."""
    if settings.plan:
        problems.found.append("--plan trains and writes nothing, and --finish writes an adapter: leave out one")
    problems.raise_any()
    run = RunFolder(Path(settings.output_dir))
    mirror = mirror_of(run, settings)
    if is_there(run.path):  # else there is nothing to finish, or only its mirror
        run_lock.take(run.path)
    if mirror and mirror.restore():
        print(f"restored from {mirror.copy.path}")
    step, better = finish_early(run, settings.step, settings.keep if "keep" in settings.given else "")
    drop_outdated_rows(run)
    if mirror:
        mirror.finish()
    write_report(run)
    if better:
        print(better.sentence)
    else:
        print(f"adapter/ is that of step {step}.")
    print(goes_further_with(run))
    print_next_commands(run)


def finish_again(settings: Settings) -> None:
    """What is left to do for a run that is trained to its last step: its copy, its report."""
    run, mirror = open_run_folder(settings)
    if mirror:
        mirror.finish()
    write_report(run)
    print(f"{run.path} is finished, after step {run.last_step}. {goes_further_with(run)} --overwrite starts anew.")
    print_next_commands(run)


def goes_further_with(run: RunFolder) -> str:
    """What has a finished run go on: a repeated command, as a notebook's cells are, must not undo ``--finish``."""
    settings = run.read()["settings"]
    patience = " and --patience 0" if settings.get("patience") else ""
    return (
        f"The command that trained it, with --max-steps above {settings['max_steps']}{patience}, goes on from the "
        "newest checkpoint."
    )


def print_next_commands(run: RunFolder) -> None:
    """The exact commands that come next."""
    print(f"\nThe adapter is in {run.adapter}, the run on one page in {run.report_file}. Next:")
    if not run.adapter_changes_nothing:
        print(f"  python merge_and_export.py {shlex.quote(str(run.path))} --gguf q8_0")
    print(f"  {evaluation_command(run.path, run.read()['settings'])}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main, "The same command, without --overwrite, begins where it was.")
