"""The rehearsal takes a full-sized step and leaves no trace."""

import json
import subprocess
import sys

from tests.conftest import ROOT

# In a process of its own: Unsloth patches what it touches. What a card would rehearse is rehearsed here on the CPU.
REHEARSED = """
import json, random, sys
from dataclasses import replace
from pathlib import Path
from kit.models import loading as model
from kit.planning.hardware import Machine
from kit.planning.plan import make_plan
from kit.training.preflight import rehearse
from kit.task.questions import load_questions
from kit.storage.run_folder import RunFolder
from kit.settings.knobs import Settings
from kit.training.trainer import as_dataset, trainer_arguments

base, data, folder = sys.argv[1:]
settings = Settings(model=base, dataset=data, beta=0.05, num_generations=4, per_device_train_batch_size=4,
                    gradient_accumulation_steps=2, max_completion_length=12, max_steps=3)
settings.given |= {"per_device_train_batch_size", "gradient_accumulation_steps"}
plan = make_plan(settings, Machine(card=None), None)
policy, tokenizer, plan = model.load_for_training(plan)
import numpy, torch
dataset = as_dataset(load_questions(data, "train", "question", "answer")[:20], tokenizer, settings)
arguments = trainer_arguments(plan.settings, plan.choice, [2.0, 0.5], RunFolder(Path(folder)))

def state():
    weights = {name: p.detach().double().sum().item() for name, p in policy.named_parameters()}
    return {"weights": weights, "adapters": sorted(policy.peft_config), "python": random.getstate()[1][:5],
            "torch": torch.get_rng_state().sum().item(), "numpy": int(numpy.random.get_state()[1].sum())}

lengths = []
generate = policy.generate
def generate_and_measure(*args, **kwargs):
    out = generate(*args, **kwargs)
    lengths.append(tuple(out.shape))
    return out
policy.generate = generate_and_measure
before = state()
rehearse(arguments, policy, tokenizer, dataset)
rehearse(arguments | {"loss_type": "nonsense"}, policy, tokenizer, dataset)  # goes wrong, and stops nothing
after = state()
print("RESULT " + json.dumps({"before": before, "after": after, "lengths": lengths,
      "longest": max(len(tokenizer(tokenizer.apply_chat_template(r["prompt"], add_generation_prompt=True,
                                                                 tokenize=False))["input_ids"]) for r in dataset),
      "gradients": [n for n, p in policy.named_parameters() if p.grad is not None]}))
"""


def test_the_rehearsal_is_full_sized_and_leaves_no_trace(chain, tmp_path):
    command = [sys.executable, "-c", REHEARSED, chain / "base", chain / "data" / "train.jsonl", tmp_path / "run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))[7:])
    assert seen["after"] == seen["before"]
    assert done.stdout.count("that step could not be taken") == 1
    assert seen["gradients"] == []
    assert seen["lengths"][0] == [8, seen["longest"] + 12]  # all completions of a step, none ended before the limit
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
