"""Pretrain the demo's base model: a tiny Qwen2 that knows most of the sums and is in format a third of the time.

    python -m demo.base runs/demo-base --seed 1

GRPO needs a model that sometimes earns a reward. This one is a real ``Qwen2ForCausalLM`` with the real Qwen2
tokenizer, small enough to train on two CPU cores in about two minutes. Left out on purpose: validation, mixed
precision (bfloat16 autocast is three times slower at this size), checkpoints.

Three things make it fast. Only some eighty of the 151,936 tokens occur in the problems, so it trains with an embedding
of just those and one more class of logit ln(151,936 - used): that is exactly the softmax of a full model whose other
(tied) embedding rows are zero, and that full model is what is saved. And the tokens that all examples start with, the
system prompt, pass through the model once a step instead of once an example. And Muon learns the matrices: it knows
enough after 428 steps, AdamW alone after 705 (seed 1).
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from demo.other_problems import TELLING
from demo.problem import Problem
from demo.problems import maker_of, problems
from demo.tokenizer import END_OF_TURN, load_tokenizer
from kit.cli.errors import run_script
from kit.cli.progress import progress
from kit.prompts import build_prompt, format_reply, tags
from kit.task.task import DEFAULT, take_task

SHAPE = {
    "hidden_size": 64,  # the least that bitsandbytes can hold in 4-bit
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "max_position_embeddings": 2048,
    "initializer_range": 0.08,  # the usual 0.02 is for wider models; here it costs hundreds of steps
}
BATCH = 64  # problems a step
MATRIX_RATE = 5e-3  # Muon's; twice as much needs a quarter more steps, four times as much learns hardly anything
OTHER_RATE = 4e-3  # AdamW's, for the embedding, biases and norms
RISING_STEPS = 50
ENOUGH_KNOWN = 0.4  # of the sums, averaged over some steps; the falling learning rate then adds half as many again
FALLING_STEPS = 250
STEPS = 1_500  # at most
HEADS = 4  # for attention, half as many for keys and values
VOCABULARY_SAMPLE = 4_000  # examples in which every token of the problems occurs
# How often a reply is shown in full XML, with the answer's tags missing, or in plain words: mostly in XML for one kind
# of question and less often for the others. So about a third of the greedy replies are in format, whatever the seed;
# most groups of rollouts hold several forms; and sums are practised inside the tags as often as outside.
SHARES = (0.75, 0.15, 0.10)
SHARES_OTHERWISE = (0.25, 0.35, 0.40)
STAMP_FILE = "demo.json"  # written last: a folder without it is not trusted

Example = tuple[list[int], int]  # token ids of prompt and reply, length of the prompt


def pretrain(folder: Path, seed: int, steps: int = STEPS, heads: int = HEADS, task: str = DEFAULT) -> None:
    """Train the tiny model on a task and write it to ``folder``, an ordinary Hugging Face checkpoint in bfloat16."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = load_tokenizer()
    torch.manual_seed(seed)
    shape = {**_shape(heads), "tie_word_embeddings": True, "bos_token_id": None}
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sample = islice(make_examples(tokenizer, seed, task), VOCABULARY_SAMPLE)
    used = sorted({token for ids, _ in sample for token in ids})
    compact = {token: index for index, token in enumerate(used)}
    examples = (([compact[token] for token in ids], length) for ids, length in make_examples(tokenizer, seed, task))

    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(used), eos_token_id=None, pad_token_id=None, **shape))
    ways = [space + mark for mark in TELLING.get(task, "0123456789") for space in ("", " ")]
    alone = {ids[0] for ids in tokenizer(ways)["input_ids"] if len(ids) == 1}
    telling = [compact[token] for token in alone if token in compact]
    train(model, examples, steps, len(tokenizer) - len(used), telling)

    whole = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **shape, **special))
    state = model.state_dict()
    embedding = torch.zeros(len(tokenizer), SHAPE["hidden_size"]).index_copy(
        0, torch.tensor(used), state["model.embed_tokens.weight"]
    )
    whole.load_state_dict(state | {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding})
    whole.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / STAMP_FILE).write_text(_stamp(seed, steps, heads, task), encoding="utf-8")


def _shape(heads: int) -> dict[str, Any]:
    return {**SHAPE, "num_attention_heads": heads, "num_key_value_heads": heads // 2}


def make_examples(tokenizer, seed: int, task: str = DEFAULT) -> Iterator[Example]:
    """Right replies to different problems, in three forms, as token ids, without end."""
    rng = random.Random(seed)
    stream = problems(seed, heldout=False, make=maker_of(task))
    while True:
        chosen = list(islice(stream, BATCH))
        prompts = [
            tokenizer.apply_chat_template(build_prompt(problem.question), add_generation_prompt=True, tokenize=False)
            for problem in chosen
        ]
        prompt_ids = tokenizer(prompts)["input_ids"]
        reply_ids = tokenizer([_reply(problem, rng) + END_OF_TURN for problem in chosen])["input_ids"]
        yield from ((prompt + reply, len(prompt)) for prompt, reply in zip(prompt_ids, reply_ids, strict=True))


def _reply(problem: Problem, rng: random.Random) -> str:
    shares = SHARES if problem.easy else SHARES_OTHERWISE
    in_words = f"The answer is {problem.reply}."
    forms = (
        format_reply(problem.steps, problem.reply),
        f"{tags()[0]}\n{problem.steps}\n{tags()[1]}\n{in_words}",
        f"{problem.steps}. {in_words}",
    )
    return rng.choices(forms, shares)[0]


def train(model, examples: Iterator[Example], most_steps: int, unused: int, digits: list[int]) -> None:
    """Train on ``examples``, none seen twice, until the model knows enough, then let the learning rate fall to zero.

    The loss is on the replies; ``unused`` is how many tokens have no embedding row, ``digits`` are those of 0 to 9, or
    what else tells right answers from wrong ones.
    """
    import torch
    from transformers import DynamicCache

    batch = list(islice(examples, BATCH))
    first, last = min(ids for ids, _ in batch), max(ids for ids, _ in batch)
    prefix = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))]
    unused_logit = torch.tensor(math.log(unused))
    optimizers, peaks = _optimizers(model)
    known, falling_since = 0.0, None
    with progress("pretraining", most_steps) as bar:
        for step in range(most_steps):
            if falling_since is None and (known >= ENOUGH_KNOWN or step >= most_steps - FALLING_STEPS):
                falling_since = step
                bar.ends_at(step + FALLING_STEPS)
            left = 1.0 if falling_since is None else 1 - (step - falling_since) / FALLING_STEPS
            if left <= 0:
                break
            for optimizer, peak in zip(optimizers, peaks, strict=True):
                optimizer.param_groups[0]["lr"] = peak * min(left, (step + 1) / RISING_STEPS)
            inputs, targets = _tensors(batch, skip=len(prefix))
            shared = DynamicCache()
            model.model(input_ids=torch.tensor([prefix]), past_key_values=shared)
            cache = DynamicCache()
            for index, layer in enumerate(shared.layers):
                cache.update(layer.keys.expand(BATCH, -1, -1, -1), layer.values.expand(BATCH, -1, -1, -1), index)
            is_reply = targets != -100
            hidden = model.model(input_ids=inputs, past_key_values=cache).last_hidden_state[is_reply]
            logits = torch.cat([model.lm_head(hidden), unused_logit.expand(len(hidden), 1)], dim=1)
            loss = torch.nn.functional.cross_entropy(logits, targets[is_reply])
            model.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            known = 0.9 * known + 0.1 * _share_known(logits, targets, torch.tensor(digits))
            bar.advance(note=f"knows {known:.0%} of the answers")
            batch = list(islice(examples, BATCH))


def _optimizers(model) -> tuple[list[Any], list[float]]:
    """Muon for the matrices of the layers and AdamW for the rest, with their peak rates."""
    import torch

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    return [muon, adamw], [MATRIX_RATE, OTHER_RATE]


def _share_known(logits, targets, digits) -> float:
    """The share of replies whose digits are all right, whatever the form around them."""
    import torch

    is_reply = targets != -100
    wrong = is_reply.new_zeros(is_reply.shape)
    wrong[is_reply] = logits.argmax(-1) != targets[is_reply]
    return 1 - (wrong & torch.isin(targets, digits)).any(1).float().mean().item()


def _tensors(batch: list[Example], skip: int):
    """Inputs and next-token targets, both (batch, longest - skip - 1); -100 where there is nothing to learn."""
    import torch

    longest = max(len(ids) for ids, _ in batch)
    inputs = torch.zeros(len(batch), longest, dtype=torch.long)
    labels = torch.full_like(inputs, -100)
    for row, (ids, prompt_length) in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt_length : len(ids)] = inputs[row, prompt_length : len(ids)]
    return inputs[:, skip:-1], labels[:, skip + 1 :]


def _stamp(seed: int, steps: int, heads: int, task: str) -> str:
    """What decides the result, as text: a folder made by another recipe is made again."""
    recipe = (BATCH, MATRIX_RATE, OTHER_RATE, RISING_STEPS, ENOUGH_KNOWN, FALLING_STEPS, SHARES, SHARES_OTHERWISE)
    other = {} if task == DEFAULT else {"task": task}
    return json.dumps({"seed": seed, "steps": steps, "shape": _shape(heads), "recipe": recipe} | other)


def is_ready(folder: Path, seed: int, steps: int, heads: int, task: str) -> bool:
    """Does ``folder`` hold a finished base model of this seed and recipe?"""
    try:
        return (folder / STAMP_FILE).read_text(encoding="utf-8") == _stamp(seed, steps, heads, task)
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain the demo's tiny base model (about two minutes).")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another model (default: 1)")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="fewer for a test of the machinery (default: %(default)s)"
    )
    parser.add_argument(
        "--heads", type=int, default=HEADS, choices=(2, 4),
        help="attention heads: 2, of 32 numbers, for cards whose attention takes none smaller (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--task", default=DEFAULT, choices=(DEFAULT, *TELLING), help="what it is to know half of (default: %(default)s)"
    )
    args = parser.parse_args()
    take_task(args.task)
    if is_ready(args.folder, args.seed, args.steps, args.heads, args.task):
        print(f"demo base model: {args.folder} is there (seed {args.seed})")
    else:
        pretrain(args.folder, args.seed, args.steps, args.heads, args.task)


if __name__ == "__main__":
    run_script(main)
