"""GRPO on the demo's task with the held-out accuracy measured on the way. Prints one line of JSON for each run.

    python -m benchmarks.accuracy_run BASE DATA_FOLDER ARM --seed 1

Started by ``benchmarks.accuracy``. The trainer is built as ``train_lora.py`` builds it. What counts is the completions
that were generated, those of a warm-up and of a measurement of the questions too; the time is without the evaluations.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.worker_runs import MARK
from kit.generation.engine import Engine, Sampling
from kit.generation.transformers_engine import engine_of
from kit.grading import verdicts
from kit.models import loading as model
from kit.planning import hardware
from kit.planning.plan import evaluation_settings
from kit.prompts import build_prompt
from kit.settings.knobs import KNOBS, Settings
from kit.storage.run_folder import RunFolder
from kit.task.questions import Row, load_questions
from kit.task.reward_columns import with_columns
from kit.training.trainer import as_dataset, build_trainer, trainer_arguments
from rewards import choose_rewards

ARMS = Path(__file__).with_name("arms.yaml")
EXPLORING, CONFIRMING = (1, 2, 3), (4, 5, 6)  # what was found with the first seeds is held to by the others
HELDOUT = 300  # questions of each evaluation
COMPLETION_TOKENS = 40
OPEN_KNOBS = {"max_completion_length", "per_device_train_batch_size", "gradient_accumulation_steps", "optim"}


@dataclass
class Curve:
    """Held-out accuracy against what was spent."""

    completions: int = 0
    evaluating: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    points: list[dict[str, float]] = field(default_factory=list)

    def measure(self, engine: Engine, questions: list[Row]) -> None:
        """Answer the held-out questions greedily and add a point."""
        began = time.perf_counter()
        judged = [verdicts(reply, questions[i]["answer"]) for i, reply in answers(engine, questions, 0.0, 0)]
        shares = {
            name: statistics.mean(verdict[name] for verdict in judged) for name in ("strict", "flexible", "in_format")
        }
        self.evaluating += time.perf_counter() - began
        spent = {"completions": self.completions, "seconds": time.perf_counter() - self.started - self.evaluating}
        self.points.append({name: round(value, 4) for name, value in (spent | shares).items()})


def main() -> None:
    args = read_arguments()
    points = train(args, read_arms()[args.arm])
    print(MARK + json.dumps({"arm": args.arm, "seed": args.seed, "points": points}), flush=True)


def read_arms() -> dict[str, dict[str, Any]]:
    """What is compared, by name: ``settings``, and where it has them ``order``, ``warm_up`` and ``completions``."""
    arms = yaml.safe_load(ARMS.read_text(encoding="utf-8"))
    return {name: {key: value for key, value in arm.items() if key != "seeds"} for name, arm in arms.items()}


def read_seeds() -> dict[str, list[int]]:
    """The seeds that an arm is run with, by name."""
    arms = yaml.safe_load(ARMS.read_text(encoding="utf-8"))
    return {name: arm.get("seeds", list(EXPLORING)) for name, arm in arms.items()}


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("data", type=Path)
    parser.add_argument("arm")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--completions", type=int, default=640, help="to generate in all")
    parser.add_argument("--every", type=int, default=40, help="completions between two evaluations")
    return parser.parse_args()


def train(args: argparse.Namespace, arm: dict[str, Any]) -> list[dict[str, float]]:
    """The points of one run's curve."""
    settings = settings_of(args, arm)
    updates = settings.further.get("num_iterations", 1)  # of each batch of completions
    questions = load_questions(str(args.data / "train.jsonl"), "train", "question", "answer")
    heldout = load_questions(str(args.data / "heldout.jsonl"), "train", "question", "answer")[:HELDOUT]
    curve = Curve()
    policy, tokenizer, settings = model.load_for_training(evaluation_settings(settings, hardware.detect(), None))
    settings = settings.settings
    engine = engine_of(policy, tokenizer, 100)
    curve.measure(engine, heldout)
    if known := arm.get("order"):
        questions = by_difficulty(engine, questions, curve, args.seed, **known)
        settings.further["shuffle_dataset"] = False
    if warm_up := arm.get("warm_up"):
        on_verified_answers(policy, tokenizer, engine, questions, curve, args.seed, **warm_up)
        curve.measure(engine, heldout)
    left = arm.get("completions", args.completions) - curve.completions
    settings.max_steps = updates * (left // settings.completions_per_step)
    functions, weights = choose_rewards(settings.rewards)
    with tempfile.TemporaryDirectory() as folder:
        arguments = trainer_arguments(settings, settings.choice, weights, RunFolder(Path(folder)))
        dataset = as_dataset(questions, tokenizer, settings)
        points = evaluations(curve, engine, heldout, settings.completions_per_step, updates, args.every)
        rewards = [with_columns(function, questions) for function in functions]
        build_trainer(arguments, policy, tokenizer, dataset, rewards, [points]).train()
    return curve.points


def settings_of(args: argparse.Namespace, arm: dict[str, Any]) -> Settings:
    """The knobs of an arm, and its further fields of TRL's GRPOConfig."""
    settings = Settings(model=args.base, seed=args.seed, vllm="off", max_completion_length=COMPLETION_TOKENS)
    settings.given = frozenset(OPEN_KNOBS)
    settings.optim, settings.gradient_accumulation_steps = "adamw_torch_fused", 1
    for name, value in arm["settings"].items():
        if name in KNOBS:
            setattr(settings, name, value)
        else:
            settings.further[name] = value
    return settings


def evaluations(curve: Curve, engine: Engine, heldout: list[Row], batch: int, updates: int, every: int) -> Any:
    """A callback that adds a point to the curve about each ``every`` completions, after a batch's last update."""
    from transformers import TrainerCallback

    class Evaluations(TrainerCallback):
        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            if state.global_step % updates:
                return
            curve.completions += batch
            if curve.completions // every > (curve.completions - batch) // every:
                curve.measure(engine, heldout)

    return Evaluations()


def answers(engine: Engine, questions: list[Row], temperature: float, seed: int) -> list[tuple[int, str]]:
    """Index and reply, for each question one."""
    prompts = [build_prompt(row["question"]) for row in questions]
    return [
        (i, reply.text)
        for batch in engine.generate(prompts, Sampling(COMPLETION_TOKENS, temperature, seed))
        for i, reply in batch
    ]


def by_difficulty(engine: Engine, questions: list[Row], curve: Curve, seed: int, count: int, samples: int) -> list[Row]:
    """``count`` questions, those that the base solves most often first, without those it always or never does."""
    chosen = questions[:count]
    solved = [0] * count
    for sample in range(samples):
        for i, reply in answers(engine, chosen, 1.0, seed + 1000 * sample):
            solved[i] += verdicts(reply, chosen[i]["answer"])["flexible"]
    curve.completions += count * samples
    useful = [i for i in range(count) if 0 < solved[i] < samples]
    return [chosen[i] for i in sorted(useful, key=lambda i: -solved[i])]


def on_verified_answers(
    policy: Any, tokenizer: Any, engine: Engine, questions: list[Row], curve: Curve, seed: int,
    count: int, samples: int, epochs: int, learning_rate: float,
) -> None:  # fmt: skip
    """A short supervised training on the completions of the model itself that are right and in format.

    Of a question's right completions each different one is taken once.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    verified: dict[tuple[int, str], None] = {}
    for sample in range(samples):
        for i, reply in answers(engine, questions[-count:], 1.0, seed + 1000 * sample):
            verdict = verdicts(reply, questions[-count:][i]["answer"])
            if verdict["strict"] and verdict["in_format"]:
                verified[i, reply] = None
    curve.completions += count * samples
    rows = [
        {
            "prompt": build_prompt(questions[-count:][i]["question"]),
            "completion": [{"role": "assistant", "content": reply}],
        }
        for i, reply in verified
    ]
    print(f"warm-up on {len(rows)} verified answers")
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=8, learning_rate=learning_rate,
            optim="adamw_torch_fused", lr_scheduler_type="linear", warmup_steps=2, save_strategy="no", report_to="none",
            disable_tqdm=True, bf16=False, gradient_checkpointing=False, completion_only_loss=True, seed=seed,
        )  # fmt: skip
        SFTTrainer(
            model=policy, processing_class=tokenizer, args=arguments, train_dataset=Dataset.from_list(rows)
        ).train()


if __name__ == "__main__":
    main()
