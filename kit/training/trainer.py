"""TRL's GRPOTrainer, put together from the kit's settings, questions and rewards."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit import ranks
from kit.chat_templates import Messages, fitted
from kit.cli.errors import UserError, first_line
from kit.planning.card_memory import Layout
from kit.planning.engine_choice import EngineChoice
from kit.planning.step_size import check_enough
from kit.prompts import build_prompt
from kit.settings.knobs import Settings
from kit.settings.losses import loss_fields
from kit.storage.run_folder import RunFolder
from kit.task.questions import Row
from kit.training.rollouts import use_vllm_on_processor
from kit.training.sampling_weights import log_limited

_PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def that_fit(
    questions: list[Row], tokenizer: Any, settings: Settings, prompt_of: Callable[[str], Messages] | None = None
) -> list[Row]:
    """The questions whose prompts, the training's or those of ``prompt_of``, are within ``--max-prompt-length``."""
    return [questions[number] for number, _ in _fitting(questions, tokenizer, settings, prompt_of)[0]]


def as_dataset(questions: list[Row], tokenizer: Any, settings: Settings) -> Any:
    """The questions as TRL wants them: a ``prompt`` of chat messages, and as ``row`` which of the questions it asks.

    Raises:
        UserError: too few are left without those that are too long.
    """
    from datasets import Dataset

    found, longest = _fitting(questions, tokenizer, settings)
    rows = [{"prompt": prompt, "row": number} for number, prompt in found]
    if len(rows) < len(questions):
        left_out = len(questions) - len(rows)
        print(f"{left_out} questions are longer than --max-prompt-length {settings.max_prompt_length}: left out")
    if not rows:
        raise UserError(f"all prompts are longer than --max-prompt-length: raise it to {longest}")
    check_enough(len(rows), settings)
    return Dataset.from_list(rows)


def _fitting(
    questions: list[Row], tokenizer: Any, settings: Settings, prompt_of: Callable[[str], Messages] | None = None
) -> tuple[list[tuple[int, Messages]], int]:
    """(number, prompt) of each question that is short enough, and the longest prompt of all in tokens."""
    prompt_of = prompt_of or (lambda question: build_prompt(question, settings.prompt()))
    prompts = [fitted(prompt_of(row["question"]), tokenizer.chat_template) for row in questions]
    texts = [tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False) for prompt in prompts]
    lengths = [len(ids) for ids in tokenizer(texts)["input_ids"]] if texts else []
    short = [number for number, length in enumerate(lengths) if length <= settings.max_prompt_length]
    return [(number, prompts[number]) for number in short], max(lengths, default=0)


def trainer_arguments(
    settings: Settings, choice: EngineChoice, weights: list[float], run: RunFolder, layout: Layout | None = None
) -> dict[str, Any]:
    """The fields of TRL's GRPOConfig that the kit sets; all others keep TRL's defaults.

    On a card Unsloth has defaults of its own; those that change what is learned are set back to TRL's here.
    """
    return {
        "output_dir": str(run.unfinished_checkpoint),
        "max_steps": settings.max_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_steps,
        "max_grad_norm": settings.max_grad_norm,
        "optim": settings.optim,
        "weight_decay": 0.0,  # TRL's default, which Unsloth changes on a card
        **loss_fields(settings.loss, settings.scale_rewards, on_card=choice.card is not None),
        "beta": settings.beta,
        "use_bias_correction_kl": True,  # TRL's default today; the TRL of requirements-t4.txt leaves it off
        "seed": settings.seed,
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "num_generations": settings.num_generations,
        "max_completion_length": settings.max_completion_length,
        "temperature": settings.temperature,
        "reward_weights": weights,
        "use_vllm": choice.use_vllm,
        **_sampling_correction(settings.sampling_correction, choice),
        "bf16": choice.dtype == "bfloat16" or (choice.card is None and settings.cpu_dtype == "bfloat16"),
        "fp16": choice.dtype == "float16",
        "gradient_checkpointing": choice.gradient_checkpointing,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": settings.report_to,
        **({"ddp_find_unused_parameters": False} if ranks.count() > 1 else {}),  # LoRA's are all used in each pass
        "disable_tqdm": True,  # metrics.jsonl and our own lines say it better
        **(_colocated(settings) if choice.use_vllm and not choice.card else {}),
        **({"unsloth_grpo_mini_batch": layout.scoring_pieces} if layout and layout.scoring_pieces else {}),
        **settings.further,
    }


def _sampling_correction(mode: str, choice: EngineChoice) -> dict[str, Any]:
    """On with vLLM, as TRL has it; Unsloth turns it off on a card."""
    if not choice.use_vllm or mode == "off":
        return {"vllm_importance_sampling_correction": False}
    return {"vllm_importance_sampling_correction": True, "vllm_importance_sampling_mode": mode}


def _colocated(settings: Settings) -> dict[str, Any]:
    """On a processor it is TRL that loads vLLM, into the trainer's process; on a card Unsloth has done so."""
    length = settings.max_prompt_length + settings.max_completion_length
    return {"vllm_mode": "colocate", "vllm_max_model_length": length}


def prepare_reporting(run: RunFolder) -> None:
    """Let TensorBoard's files and other trackers' names follow the run; what the user has set stays."""
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(run.tensorboard))
    os.environ.setdefault("WANDB_PROJECT", "onecard")
    os.environ.setdefault("WANDB_NAME", run.path.resolve().name)


def build_trainer(arguments, policy, tokenizer, dataset, reward_functions, callbacks: list[Any]) -> Any:
    """TRL's GRPOTrainer with these callbacks, and with the adapter in float32.

    Raises:
        UserError: TRL refuses the arguments.
        VllmNotLoaded: on a processor, where it is TRL that loads it.
    """
    import torch
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    if arguments["use_vllm"] and not torch.cuda.is_available():
        use_vllm_on_processor(arguments["seed"], "bfloat16" if arguments["bf16"] else "float32")
    try:
        args = GRPOConfig(**arguments)
        if hasattr(args, "warmup_ratio"):  # transformers 4 falls back on it at --warmup-steps 0; Unsloth makes it 0.1
            args.warmup_ratio = 0.0
        with _place_kept():
            trainer = GRPOTrainer(
                model=policy,
                processing_class=tokenizer,
                reward_funcs=reward_functions,
                args=args,
                train_dataset=dataset,
                callbacks=callbacks,
            )
    except (TypeError, ValueError, NotImplementedError, ImportError) as error:
        raise UserError(f"TRL refuses these settings: {first_line(error)}") from error
    trainer.remove_callback(PrinterCallback)
    log_limited(trainer)
    hold_adapter_in_float32(trainer.model)
    return trainer


@contextmanager
def _place_kept() -> Iterator[None]:
    """TRL tells vLLM its place among processes by variables. The arguments of the next trainer, a warm start's or the
    real one's after a rehearsal, would infer several cards from them, and its checkpoints hold the random states of a
    list of cards, which the program that goes on could not take up."""
    before = {name: os.environ.get(name) for name in _PLACE}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def forget_reference(policy: Any) -> None:
    """Take away the frozen copy of the adapter that a trainer with a KL term made, so that another can."""
    if "ref" in policy.peft_config:
        policy.delete_adapter("ref")
        policy.set_adapter("default")


def go_on_in_order(trainer: Any, checkpoint: Path) -> None:
    """Have a trainer that goes on from ``checkpoint`` ask the questions in the order of a run that nobody stopped.

    TRL shuffles them anew in each pass, with random numbers that no checkpoint holds: after one in the second pass,
    transformers would begin that pass in the order of the first. And transformers 4 takes the rows of a pass from the
    checkpoint, whatever the arguments say, while TRL's sampler takes those: of a step that is split otherwise now, as
    after running out of memory, half the questions would never be asked.
    """
    batches_of = trainer.get_train_dataloader

    def batches() -> Any:
        trainer._train_batch_size = trainer.args.train_batch_size
        return batches_of()

    trainer.get_train_dataloader = batches
    passes = int(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["epoch"])
    sampler_of = trainer._get_train_sampler

    def sampler(*arguments: Any, **options: Any) -> Any:
        its = sampler_of(*arguments, **options)
        for _ in range(passes):
            next(iter(its), None)  # which draws the order of a pass
        return its

    trainer._get_train_sampler = sampler


def hold_adapter_in_float32(model: Any) -> None:
    """TRL's trainers cast LoRA on a 4-bit base to bfloat16, and leave it so: there small updates round away."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
