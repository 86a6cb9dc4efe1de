#!/usr/bin/env python3
"""Fine-tune a small language model with GRPO on grade-school maths, on one consumer GPU.

    python train_lora.py                                             Qwen2.5-0.5B on GSM8K, 250 steps
    python train_lora.py --dataset my.jsonl --output-dir runs/mine   your own questions

GRPO: for each question the model writes a group of completions; the rewards score them; the adapter learns to make
the better ones of each group more likely. Left out on purpose: full fine-tuning, several GPUs, a learned reward model.

Unsloth loads the base in 4 bits and attaches LoRA, vLLM writes the completions where there is a CUDA card, TRL's
GRPOTrainer trains. Everything goes into one run folder: run.yaml, adapter/, metrics.jsonl, samples.jsonl.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from kit import hardware, model
from kit.errors import UserError, run_script
from kit.hardware import Choice
from kit.hub import check_model
from kit.own_rewards import RewardFunction
from kit.prompts import SYSTEM_PROMPT, build_prompt
from kit.questions import Row, fingerprint, load_questions
from kit.runs import RunFolder
from kit.settings import Settings, read_settings
from kit.versions import installed_versions
from kit.watch import RunLog
from rewards import choose


def main() -> None:
    settings, questions, (reward_functions, weights) = check_everything()
    run = open_run_folder(settings)
    choice = hardware.choose(hardware.detect(), settings.vllm)
    print(choice.reason)
    policy, tokenizer = model.load_for_training(settings, choice)  # before TRL is imported: Unsloth patches it
    dataset = as_dataset(questions, tokenizer, settings)
    log = RunLog(run, settings.max_steps, settings.sample_every)
    arguments = trainer_arguments(settings, choice, weights, run)
    trainer = build_trainer(arguments, policy, tokenizer, dataset, reward_functions, log)
    names = [function.__name__ for function in reward_functions]
    run.write(
        describe_run(settings, questions, choice, dict(zip(names, weights, strict=True)), arguments, trainer.args)
    )
    with log.showing_progress():
        trainer.train()
    policy.save_pretrained(run.adapter)
    tokenizer.save_pretrained(run.adapter)
    print_next_commands(run, settings)


def check_everything() -> tuple[Settings, list[Row], tuple[list[RewardFunction], list[float]]]:
    """The settings, the questions, and the rewards with their weights.

    Raises:
        UserError: with all that is wrong, before anything heavy is loaded and with nothing on disk touched.
    """
    settings, problems = read_settings(None, __doc__)
    rewards = problems.catch(choose, settings.rewards)
    problems.catch(check_run_folder, settings)
    problems.catch(check_model, settings.model)
    columns = (settings.question_column, settings.answer_column)
    questions = problems.catch(load_questions, settings.dataset, settings.split, *columns)
    problems.raise_any()
    return settings, questions, rewards


def check_run_folder(settings: Settings) -> None:
    """Refuse an output folder that is occupied, unless it is a run and ``--overwrite`` was given."""
    run = RunFolder(Path(settings.output_dir))
    if run.path.exists() and not run.path.is_dir():
        raise UserError(f"--output-dir {run.path} is a file: name a folder")
    existing = next(folder for folder in (run.path, *run.path.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        raise UserError(f"--output-dir {run.path} cannot be written to: name another folder")
    if not run.path.exists() or not any(run.path.iterdir()):
        return
    if not run.exists():
        raise UserError(f"--output-dir {run.path} holds something that is no run: name another folder")
    if not settings.overwrite:
        before, now = run.read().get("settings", {}), settings.as_config()
        other = [name for name in now if name in before and before[name] != now[name] and name != "output_dir"]
        differs = f" of other settings ({', '.join(other)})" if other else ""
        raise UserError(
            f"--output-dir {run.path} holds a run{differs}: name another folder, or add --overwrite to start anew in it"
        )


def open_run_folder(settings: Settings) -> RunFolder:
    """The run folder, emptied; ``check_run_folder`` has allowed that."""
    run = RunFolder(Path(settings.output_dir))
    shutil.rmtree(run.path, ignore_errors=True)
    run.path.mkdir(parents=True)
    return run


def as_dataset(questions: list[Row], tokenizer: Any, settings: Settings) -> Any:
    """The questions as TRL wants them: a ``prompt`` of chat messages and the ``answer`` column for the rewards."""
    from datasets import Dataset

    prompts = [build_prompt(row["question"]) for row in questions]
    texts = [tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) for prompt in prompts]
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    rows = [
        {"prompt": prompt, "answer": row["answer"]}
        for prompt, row, length in zip(prompts, questions, lengths, strict=True)
        if length <= settings.max_prompt_length
    ]
    if len(rows) < len(questions):
        left_out = len(questions) - len(rows)
        print(f"{left_out} questions are longer than --max-prompt-length {settings.max_prompt_length}: left out")
    if not rows:
        raise UserError(f"all prompts are longer than --max-prompt-length: raise it to {max(lengths)}")
    return Dataset.from_list(rows)


def trainer_arguments(settings: Settings, choice: Choice, weights: list[float], run: RunFolder) -> dict[str, Any]:
    """The fields of TRL's GRPOConfig that the kit sets; all others keep TRL's defaults."""
    return {
        "output_dir": str(run.path / "checkpoints"),
        "max_steps": settings.max_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_steps,
        "max_grad_norm": settings.max_grad_norm,
        "optim": settings.optim,
        "beta": settings.beta,
        "seed": settings.seed,
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "num_generations": settings.num_generations,
        "max_completion_length": settings.max_completion_length,
        "temperature": settings.temperature,
        "reward_weights": weights,
        "use_vllm": choice.use_vllm,
        "bf16": choice.dtype == "bfloat16",
        "fp16": choice.dtype == "float16",
        "gradient_checkpointing": choice.gradient_checkpointing,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,  # metrics.jsonl and our own progress bar say it better
        **settings.further,
    }


def build_trainer(arguments, policy, tokenizer, dataset, reward_functions, log: RunLog) -> Any:
    """TRL's GRPOTrainer, with every completion passing by the log."""
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    try:
        args = GRPOConfig(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"TRL refuses these settings: {error}") from error
    trainer = GRPOTrainer(
        model=policy,
        processing_class=tokenizer,
        reward_funcs=[log.watch(function) for function in reward_functions],
        args=args,
        train_dataset=dataset,
        callbacks=[log.callback()],
    )
    trainer.remove_callback(PrinterCallback)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL casts LoRA to bfloat16, where small updates round away
            parameter.data = parameter.data.float()
    return trainer


def describe_run(
    settings: Settings, questions: list[Row], choice: Choice, weights: dict[str, float], arguments, received
) -> dict[str, Any]:
    """What run.yaml holds: enough to repeat the run, and for the later scripts to need no other path."""
    values = received.to_dict()  # of the trainer's own arguments, tokens masked
    return {
        "settings": settings.as_config(),
        "system_prompt": SYSTEM_PROMPT,
        "reward_weights": weights,
        "data": {"questions": len(questions), "fingerprint": fingerprint(questions)},
        "machine": {"card": choice.card, "dtype": choice.dtype, "vllm": choice.use_vllm},
        "versions": installed_versions(),
        "trainer": {name: values[name] for name in arguments},
    }


def print_next_commands(run: RunFolder, settings: Settings) -> None:
    """The exact commands that come next."""
    print(f"\nThe adapter is in {run.adapter}. Next:")
    print(f"  python merge_and_export.py {run.path} --gguf q8_0 q4_k_m")
    is_file = Path(settings.dataset).exists()
    print(
        f"  python evaluate.py {run.path} --dataset {'YOUR_HELD_OUT_QUESTIONS.jsonl' if is_file else settings.dataset}"
    )


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main)
