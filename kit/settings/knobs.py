"""Every knob of the training, once: name, default, reason. The command line, ``--config`` files and run.yaml all read
from this one list (kit/settings/reading.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.cli.errors import UserError
from kit.numbers.reading import DECIMAL_MARKS
from kit.prompts import default_system_prompt
from kit.settings.losses import LOSSES, WHEN_WHICH

# Questions that ``--warm-start auto`` asks: first so many, and up to the latter where more find enough right replies.
WARM_START_QUESTIONS, WARM_START_MOST = 128, 512
SCHEDULES = ("constant_with_warmup", "constant", "linear", "cosine")
OPTIMIZERS = ("adamw_8bit", "paged_adamw_8bit", "adamw_torch", "adamw_torch_fused")


def knob(default: Any, reason: str, group: str, **options: Any) -> Any:
    """A dataclass field that is also a command line option; ``reason`` is its help text.

    A ``changeable`` one may be another when a run is continued: it does not change what is learned. One that is
    ``chosen`` is chosen for the machine or the data where the user does not set it; ``before`` is what runs had that
    were recorded before it was there. One that is not ``recorded`` stays out of run.yaml.
    """
    return field(default=default, metadata={"reason": reason, "group": group, **options})


@dataclass
class Settings:
    """What a training run can be told. Lengths are in tokens, batch sizes in completions."""

    model: str = knob("unsloth/Qwen2.5-0.5B-Instruct", "Hub id or folder of the base model", "model")
    load_in_4bit: bool = knob(True, "hold the frozen base weights in 4 bits", "model")
    cpu_dtype: str = knob("auto", "of passes on a processor: bfloat16 where its products are clearly faster", "model",
                          choices=("auto", "float32", "bfloat16"), chosen=True)  # fmt: skip
    vllm: str = knob("auto", "rollouts through vLLM: auto, off, or require", "model",
                     choices=("auto", "off", "require"), changeable=True)  # fmt: skip
    gpu_memory_utilization: float = knob(0.5, "the share of the card's free memory that vLLM may take", "model",
                                          below=1.0, changeable=True, chosen=True)  # fmt: skip

    dataset: str = knob("openai/gsm8k", "Hub id, or file (JSON Lines or array, CSV, Parquet) of the questions", "data")
    dataset_config: str = knob("", "which configuration of a Hub data set", "data")
    split: str = knob("train", "which split of a Hub data set; train[:500] is a part, of a file too", "data")
    question_column: str = knob("question", "the column of the question, as a text or as chat messages", "data")
    answer_column: str = knob("answer", "the column that holds the answer (a number, or GSM8K's '... #### N'); "
                              "a.b names b in the column a", "data")  # fmt: skip
    decimal_mark: str = knob("point", "of answers and replies: point for 1,200.5, comma for 1.200,5", "data",
                             choices=DECIMAL_MARKS)  # fmt: skip
    task: str = knob("gsm8k", "what is asked and what is right: a file of the folder tasks/, by its name, or your own "
                     "(FILE.yaml, FILE.py)", "data")  # fmt: skip
    skip_bad_rows: bool = knob(False, "leave out rows that cannot be used, and say how many", "data")
    screen: int = knob(0, "ask each question so many times first, until enough are neither always right nor always "
                       "wrong, and train on those; 0 trains on all", "data", least=0)  # fmt: skip
    system_prompt: str = knob("", "what the model is told first: a text, or a file that holds it; empty is the "
                              "task's, which asks for the tags that rewards read", "data", or_file=True)  # fmt: skip

    lora_rank: int = knob(32, "rank of the adapter; 32 matched full training of 0.5B in verl's runs", "adapter")
    lora_alpha: int = knob(32, "scale of the adapter; equal to the rank, the update is used as it is", "adapter")

    max_steps: int = knob(250, "optimizer steps", "training")
    learning_rate: float = knob(3e-5, "peak rate; the one of verl's LoRA recipe for 0.5B", "training")
    num_generations: int = knob(8, "completions for each question (the group size)", "training", least=2)
    per_device_train_batch_size: int = knob(8, "completions in one forward pass", "training", alias="--batch-size",
                                            chosen=True)  # fmt: skip
    gradient_accumulation_steps: int = knob(4, "forward passes for each optimizer step", "training", chosen=True)
    max_prompt_length: int = knob(512, "longer prompts are left out, with a sentence", "training")
    max_completion_length: int = knob(512, "where a completion is cut off", "training", chosen=True)
    temperature: float = knob(1.0, "of the rollouts; 1.0 samples from the policy itself", "training")
    sampling_correction: str = knob(
        "token_truncate", "of the difference between vLLM's probabilities and the trainer's, a token or a completion "
        "(sequence) at a time: leave out those that differ too much, or cap their weight. A completion's ratio is the "
        "product of hundreds of small roundings, mostly noise; a token's stays near 1", "training",
        choices=("sequence_mask", "sequence_truncate", "token_mask", "token_truncate", "off"),
    )  # fmt: skip
    beta: float = knob(0.0, "weight of the KL term; 0 needs no reference model", "training", least=0)
    loss: str = knob(
        "dr_grpo", f"how the tokens of a step are weighed: {WHEN_WHICH}", "training", choices=tuple(LOSSES),
        before="dapo",
    )  # fmt: skip
    scale_rewards: str = knob(
        "none", "advantages are divided by the spread of rewards in their group (the paper), in the batch, or by "
        "nothing: in a group that is wrong throughout, dividing makes a slip of format weigh as much as being right",
        "training", choices=("group", "batch", "none"), of_bool=("none", "group"), before="group",
    )  # fmt: skip
    warmup_steps: int = knob(10, "steps until the peak learning rate", "training", least=0)
    lr_scheduler_type: str = knob("constant_with_warmup", "shape of the learning rate", "training", choices=SCHEDULES)
    max_grad_norm: float = knob(0.2, "gradients are clipped to this norm", "training")
    optim: str = knob(
        "adamw_8bit", "8 bits save memory on a card; on a CPU adamw_torch_fused is chosen", "training",
        choices=OPTIMIZERS, chosen=True,
    )  # fmt: skip
    seed: int = knob(1, "of the adapter, the data order and the sampling", "training", least=0, below=2**32)

    warm_start: str = knob(
        "auto", "first train on the model's own replies in format, to so many questions asked with a worked example; "
        "auto: where less than half of its completions are in format, or of its groups have spread. It teaches the "
        "form, and hardly any sums", "start",
        choices=("auto", "off"), number=True, chosen=True, before="off",
    )  # fmt: skip
    worked_example: str = knob("", "a YAML file with question and reply, to be shown instead of the task's", "start")

    rewards: str = knob(
        "sums", "a recipe of rewards.py: sums pays most for being right, original as much for format, which costs a "
        "small model its sums; or functions of it, and FILE.py:FUNCTION, each with an optional :WEIGHT. A --task has "
        "its own", "rewards",
    )  # fmt: skip

    output_dir: str = knob("runs/qwen2.5-0.5b-gsm8k", "the run folder; everything the run makes goes there", "output",
                           changeable=True)  # fmt: skip
    overwrite: bool = knob(False, "empty a run folder that is occupied, and its copy in --mirror, and start anew",
                           "output", changeable=True, recorded=False)  # fmt: skip
    sample_every: int = knob(1, "steps between two entries of samples.jsonl", "output", changeable=True)

    show_every: int = knob(10, "steps between two sample replies on the console", "output", changeable=True)
    report_to: str = knob("none", "besides metrics.jsonl: tensorboard, wandb or trackio, as TRL has them", "output",
                          choices=("none", "tensorboard", "wandb", "trackio"), changeable=True)  # fmt: skip

    eval_every: int = knob(20, "steps between two held-out scores of the policy; 0 is never", "held-out score", least=0,
                           changeable=True)  # fmt: skip
    eval_questions: int = knob(100, "set aside for it and never trained on; by default a tenth of the data at most, "
                               "and none of fewer than 200",
                               "held-out score", least=0, chosen=True, before=0)  # fmt: skip
    keep: str = knob("best", "adapter/ is the best step by held-out score where the last seems worse, or the last",
                     "held-out score", choices=("best", "last"), changeable=True)  # fmt: skip
    patience: int = knob(0, "end after so many held-out scores in a row that are no better than the best; 0 is never",
                         "held-out score", least=0, changeable=True)  # fmt: skip

    save_steps: int = knob(50, "steps between two checkpoints", "checkpoints", changeable=True)
    save_minutes: float = knob(10.0, "and a checkpoint whenever so many minutes have passed", "checkpoints",
                               changeable=True)  # fmt: skip
    keep_checkpoints: int = knob(2, "how many are kept; should the last be damaged, the one before is used",
                                 "checkpoints", changeable=True)  # fmt: skip
    mirror: str = knob("", "copy each checkpoint to this folder too, such as a mounted Google Drive", "checkpoints",
                       changeable=True)  # fmt: skip

    finish: bool = knob(False, "make the newest checkpoint of --output-dir its adapter, or the best step (see --keep), "
                        "and train no further", "checkpoints", changeable=True, recorded=False)  # fmt: skip
    step: int = knob(0, "with --finish, the checkpoint of this step; 0 is the newest, or the best", "checkpoints",
                     least=0, changeable=True, recorded=False)  # fmt: skip

    plan: bool = knob(False, "print whether the run fits, and what it takes, and train nothing", "plan",
                      changeable=True, recorded=False)  # fmt: skip
    gpu: str = knob("", "plan for this card instead of the one that is here, such as t4 or rtx4070-laptop-8gb", "plan",
                    changeable=True, recorded=False)  # fmt: skip

    gpus: int = knob(1, "with --plan, for so many cards that share a step's completions; training has one for each "
                     "process that accelerate launch --num_processes N starts", "plan", changeable=True)  # fmt: skip

    given: frozenset[str] = field(default=frozenset(), compare=False)  # the knobs that the user set
    further: dict[str, Any] = field(default_factory=dict)  # more fields of TRL's GRPOConfig; from a file only
    epochs: float | None = None  # passes over the questions, from a file that says no steps; they become max_steps

    @property
    def completions_per_step(self) -> int:
        """How many completions one optimizer step learns from, on all cards."""
        return self.completions_per_card * self.gpus

    @property
    def completions_per_card(self) -> int:
        """How many of them a card (a process) writes and learns from."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def prompt(self) -> str:
        """What the model is told first."""
        return self.system_prompt or default_system_prompt()

    def as_config(self) -> dict[str, Any]:
        """What a ``--config`` file would have to say for the same settings.

        What is of one call alone is left out, such as ``overwrite``: a run.yaml given back as ``--config`` must not
        delete the run that it describes.
        """
        return {name: getattr(self, name) for name in KNOBS if _recorded(name)} | self.further


KNOBS = {spec.name: spec for spec in dataclasses.fields(Settings) if spec.metadata}
BATCH_KNOBS = ("per_device_train_batch_size", "gradient_accumulation_steps")


def recorded_completions_per_step(recorded: Mapping[str, Any]) -> int:
    """The completions of a step of a recorded run, on all of its cards (their product is what must stay)."""
    return math.prod(int(recorded.get(name, 1)) for name in (*BATCH_KNOBS, "gpus"))


def shared_out(settings: Settings, completions: int | None = None) -> Settings:
    """The settings with each card's share of the completions of a step, where the user did not say what it is.

    Args:
        settings: with ``gpus``.
        completions: of a whole step; by default the recipe's, in whole groups.

    Raises:
        UserError: they cannot be shared out evenly, and fewer or more would be another recipe.
    """
    if settings.given & set(BATCH_KNOBS) or (settings.gpus == 1 and completions is None):
        return settings
    default, group = Settings(), settings.num_generations
    whole = completions or max(1, round(default.completions_per_step / group)) * group
    if whole % settings.gpus:
        fitting = ", ".join(str(number) for number in range(1, whole + 1) if whole % number == 0)
        raise UserError(
            f"{settings.gpus} cards cannot share {whole} completions a step evenly: take {fitting} of them, or say "
            "with --batch-size and --gradient-accumulation-steps what one of them does"
        )
    share: dict[str, Any] = {
        BATCH_KNOBS[0]: whole // settings.gpus,
        BATCH_KNOBS[1]: 1,
    }  # in how many passes: for the plan to choose
    return dataclasses.replace(settings, **share)


def _recorded(name: str) -> bool:
    return bool(KNOBS[name].metadata.get("recorded", True))
