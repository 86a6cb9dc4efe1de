"""train_lora.py as one of a run's processes, seen through: run by torchrun in tests, as a user's own command would be.

With ``COMPLETIONS=fixed`` the policy writes completions that depend on their place in the step alone, whichever process
they fall to. Where ``HASHES`` names a folder, each process leaves a hash of its adapter there when it is done.
``FAILS_IN=RANK:STEP`` has the reward ``fails`` raise there, ``ENDS_IN=RANK:STEP`` kills that process while it saves.
"""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import train_lora
from kit import ranks
from kit.checkpointing import saving
from kit.cli.errors import run_script
from kit.models import loading
from rewards import correctness

BANK = [  # that earn differently, and are of different lengths
    "<reasoning>\n3 + 3 = 6\n</reasoning>\n<answer>\n6\n</answer>", "so so so 5 + 5", "<answer>16</answer>",
    "<reasoning>10 and 10</reasoning> <answer>20</answer>", "<reasoning>12", "so it is 2",
]  # fmt: skip
_policies = []


def written(policy, tokenizer):
    """A stand-in for ``policy.generate``."""
    import torch

    def generate(input_ids=None, **_):
        first = ranks.rank() * len(input_ids)
        texts = [BANK[5 * (first + row) % len(BANK)] for row in range(len(input_ids))]
        rows = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        longest = max(map(len, rows))
        padded = [ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids in rows]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)

    return generate


def loaded(plan, load=loading.load_for_training):
    policy, tokenizer, plan = load(plan)
    if os.environ.get("COMPLETIONS") == "fixed":
        policy.generate = written(policy, tokenizer)
    _policies.append(policy)
    return policy, tokenizer, plan


def is_here(variable: str, step: int) -> bool:
    """Does the variable name this process and this step?"""
    return os.environ.get(variable) == f"{ranks.rank()}:{step}"


def fails(completions, trainer_state, **columns):
    if is_here("FAILS_IN", trainer_state.global_step + 1):
        raise ValueError("it has had enough")
    return correctness(completions=completions, **columns)


def seal(*arguments, seal=saving.seal_checkpoint):
    if is_here("ENDS_IN", arguments[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return seal(*arguments)


def adapter_hash() -> str:
    content = hashlib.sha256()
    for _, weight in sorted(_policies[-1].named_parameters()):
        if weight.requires_grad:
            content.update(weight.detach().numpy().tobytes())
    return content.hexdigest()


def main() -> None:
    loading.load_for_training = loaded
    saving.seal_checkpoint = seal
    rank = ranks.rank()
    train_lora.main()
    if folder := os.environ.get("HASHES"):
        (Path(folder) / str(rank)).write_text(adapter_hash())


if __name__ == "__main__":
    run_script(main)
