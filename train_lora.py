#!/usr/bin/env python3
"""Fine-tune a small language model with GRPO on grade-school maths, on one consumer GPU.

    python train_lora.py                                             Qwen2.5-0.5B on GSM8K, 250 steps
    python train_lora.py --dataset my.jsonl --output-dir runs/mine   your own questions

GRPO: for each question the model writes a group of completions; the rewards score them; the adapter learns to make
the better ones of each group more likely. Left out on purpose: full fine-tuning, several GPUs, a learned reward model.

Unsloth loads the base in 4 bits and attaches LoRA, vLLM writes the completions where there is a CUDA card, TRL's
GRPOTrainer trains. Everything goes into one run folder: run.yaml, checkpoints/, adapter/, metrics.jsonl, samples.jsonl.
The same command again continues a run that was stopped, from its last checkpoint.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from kit import hardware, model
from kit.errors import run_script
from kit.failures import explained
from kit.hub import check_model, fetching, sixteen_bit_name
from kit.own_rewards import RewardFunction
from kit.questions import Row, load_questions
from kit.resuming import check_run_folder, open_run_folder, where_to_start
from kit.run_record import describe_run, describe_trainer, save_adapter
from kit.runs import RunFolder
from kit.saving import checkpointing
from kit.settings import Settings, read_settings
from kit.stopping import StopRequest
from kit.training import as_dataset, build_trainer, trainer_arguments
from kit.watch import RunLog
from rewards import choose


def main() -> None:
    settings, questions, (functions, weights) = check_everything()
    choice = hardware.choose(hardware.detect(), settings.vllm)
    run, mirror = open_run_folder(settings)
    if run.has_adapter:
        if mirror:
            mirror.finish()
        print(f"{run.path} is trained to its last step; --overwrite would start anew.")
        print_next_commands(run, settings)
        return
    start, done = where_to_start(run)
    run.write(record := describe_run(settings, questions, functions, weights))
    print(choice.reason)
    stop, log = StopRequest(), RunLog(run, settings.max_steps, settings.sample_every, done)
    keeper = checkpointing(run, settings, stop, mirror, start)
    with explained(run, settings):
        policy, tokenizer = model.load_for_training(settings, choice)  # before TRL is imported: Unsloth patches it
        dataset = as_dataset(questions, tokenizer, settings)
        arguments = trainer_arguments(settings, choice, weights, run)
        trainer = build_trainer(arguments, policy, tokenizer, dataset, functions, log, keeper)
        run.write(record | describe_trainer(choice, arguments, trainer))
        with stop.listening(), fetching(sixteen_bit_name(settings.model), stop), log.showing_progress():
            trainer.train(resume_from_checkpoint=start)
        if trainer.state.global_step >= settings.max_steps:
            save_adapter(run, policy, tokenizer)
    if mirror:
        mirror.finish()
    if not run.has_adapter:
        print(f"stopped after step {trainer.state.global_step}: the same command goes on from there", file=sys.stderr)
        sys.exit(stop.exit_status)
    print_next_commands(run, settings)


def check_everything() -> tuple[Settings, list[Row], tuple[list[RewardFunction], list[float]]]:
    """The settings, the questions, and the rewards with their weights.

    Raises:
        UserError: with all that is wrong, before anything heavy is loaded and with nothing on disk touched.
    """
    settings, problems = read_settings(None, __doc__)
    rewards = problems.catch(choose, settings.rewards)
    problems.catch(check_model, settings.model)
    if (base := sixteen_bit_name(settings.model)) != settings.model:
        problems.catch(check_model, base, option="--model: the 16-bit weights that merging needs,")
    columns = (settings.question_column, settings.answer_column)
    questions = problems.catch(load_questions, settings.dataset, settings.split, *columns)
    problems.catch(check_run_folder, settings, questions)
    problems.raise_any()
    return settings, questions, rewards


def print_next_commands(run: RunFolder, settings: Settings) -> None:
    """The exact commands that come next."""
    print(f"\nThe adapter is in {run.adapter}. Next:")
    folder = shlex.quote(str(run.path))
    print(f"  python merge_and_export.py {folder} --gguf q8_0 q4_k_m")
    is_file = Path(settings.dataset).exists()
    print(f"  python evaluate.py {folder} --dataset {'YOUR_HELD_OUT_QUESTIONS.jsonl' if is_file else settings.dataset}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main, "The same command begins where it was.")
