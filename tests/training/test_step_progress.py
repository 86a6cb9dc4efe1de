"""A long step says how far it is, and a short one nothing."""

from types import SimpleNamespace

import torch

from kit.training.step_progress import EVERY_S, StepProgress


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_tokens_passes_and_time_are_said_now_and_then():
    clock, said = Clock(), []
    progress = StepProgress(said.append, clock)
    tokenizer = SimpleNamespace(eos_token_id=2, pad_token_id=0)
    drawn = torch.tensor([[5, 2], [6, 7]])

    def generate(stopping_criteria):
        for _ in range(4):
            clock.now += EVERY_S / 2
            assert not stopping_criteria(drawn, None).any()
        return drawn

    policy = SimpleNamespace(generate=generate)
    progress.watch(policy, tokenizer)
    callback = progress.callback()
    callback.on_step_begin(None, SimpleNamespace(global_step=2), None)
    assert policy.generate() is drawn
    args = SimpleNamespace(gradient_accumulation_steps=8)
    callback.on_substep_end(args, None, None)
    clock.now += EVERY_S
    callback.on_substep_end(args, None, None)
    assert said == [
        "  step 3, after 20 s: 2 tokens of each completion written, 1 of 2 ended",
        "  step 3, after 40 s: 4 tokens of each completion written, 1 of 2 ended",
        "  step 3, after 60 s: learned from 2 of 8 passes",
    ]


def test_what_is_answered_between_two_steps_is_none_of_a_step():
    clock, said = Clock(), []
    progress = StepProgress(said.append, clock)
    callback = progress.callback()
    for step in (0, 1):
        clock.now += 10 * EVERY_S
        progress.note("held-out questions")
        callback.on_step_begin(None, SimpleNamespace(global_step=step), None)
        callback.on_step_end(None, None, None)
    clock.now += 10 * EVERY_S
    progress.note("held-out questions")
    assert not said
