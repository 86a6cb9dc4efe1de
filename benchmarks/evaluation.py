"""Evaluation beside lm-evaluation-harness (speed, and both graders on the same replies) and beside llama-batched-bench.

    python -m benchmarks.evaluation runs/demo runs/demo-data/heldout.jsonl

Needs a finished ``make demo``. The second part makes a random q8_0 file of Qwen2.5-0.5B's exact shape (2 GB of disk
while it runs), since the demo's model is too small to say anything about a real one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import write_result
from kit.generation.artefacts import find_artefacts
from kit.generation.engine import Sampling
from kit.generation.open import open_engine
from kit.generation.runtime import Room, choose_runtime
from kit.grading import flexible_answer, gold_answer, is_correct
from kit.llama_cpp.build import program
from kit.llama_cpp.gguf import convert, quantize

ROUNDS, QUESTIONS, QUESTIONS_ONE_BY_ONE = 3, 200, 60
SHAPE = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "max_position_embeddings": 32768,
}  # fmt: skip
PROMPT_TOKENS, REPLY_TOKENS = 128, 64
_WORDS = "apple river stone cloud green table window music paper light water bread house train field glass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    figures = {"lm_eval": beside_lm_eval(args.run, args.data)}
    demo = next((args.run / "gguf").glob("*.q8_0.gguf"))
    figures["llama_server_demo_file"] = beside_batched_bench(demo)
    with tempfile.TemporaryDirectory() as scratch:
        random_file = make_random_file(args.run / "merged", Path(scratch))
        figures["llama_server_qwen2.5_0.5b_shape"] = beside_batched_bench(random_file)
    print(write_result("evaluation", figures, packages=("lm_eval", "transformers", "torch", "unsloth")))


def beside_lm_eval(run: Path, data: Path) -> dict[str, Any]:
    """Questions per second in turn (ours, theirs at our batch size, theirs at 1), and where the graders disagree."""
    rates: dict[str, list[float]] = {"kit": [], "lm_eval_batch_64": [], "lm_eval_batch_1": []}
    for _ in range(ROUNDS):
        rates["kit"].append(kit_rate(run, data))
        same_batch = harness(run, data, QUESTIONS, 64)
        rates["lm_eval_batch_64"].append(same_batch["questions_per_second"])
        rates["lm_eval_batch_1"].append(harness(run, data, QUESTIONS_ONE_BY_ONE, 1)["questions_per_second"])
        print({name: round(values[-1], 2) for name, values in rates.items()}, flush=True)
    replies = same_batch["replies"]
    differ = [
        {"reply": line["reply"], "gold": line["gold"][-12:], "kit": ours, "lm_eval": line["flexible-extract"]}
        for line in replies
        if (ours := is_correct(flexible_answer(line["reply"]), gold_answer(line["gold"]))) != line["flexible-extract"]
    ]
    return {
        "questions_per_second": rates,
        "ratio_to_batch_64": spread(rates["kit"], rates["lm_eval_batch_64"]),
        "ratio_to_batch_1": spread(rates["kit"], rates["lm_eval_batch_1"]),
        "graded_replies": len(replies),
        "graders_differ": differ,
    }


def kit_rate(run: Path, data: Path) -> float:
    """evaluate.py on merged, in a fresh folder so that nothing is taken from a transcript."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "evaluate.py", run / "merged", "--dataset", data, "--limit", str(QUESTIONS)]
        command += ["--batch-size", "64", "--output-dir", output]
        subprocess.run(command, check=True, capture_output=True)
        scores = json.loads((Path(output) / "scores.json").read_text(encoding="utf-8"))
    return scores["rows"][0]["questions_per_second"]


def harness(run: Path, data: Path, limit: int, batch_size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.lm_eval_side", run / "merged", data, "--limit", str(limit)]
    command += ["--batch-size", str(batch_size), "--max-tokens", "40"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout[done.stdout.index('{"questions_per_second"') :])


def spread(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median and range of the ratios, round by round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def make_random_file(tokenizer: Path, scratch: Path) -> Path:
    """A q8_0 GGUF of Qwen2.5-0.5B's shape with random weights."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=151_936, tie_word_embeddings=True, **SHAPE)).to(torch.bfloat16)
    model.save_pretrained(scratch / "model")
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(scratch / "model")
    convert(scratch / "model", scratch / "f16.gguf", "f16", "random")
    quantize(scratch / "f16.gguf", scratch / "random.q8_0.gguf", "q8_0")
    return scratch / "random.q8_0.gguf"


def beside_batched_bench(file: Path) -> dict[str, Any]:
    """Tokens a second, prompt and reply together: evaluation's llama-server, and llama-batched-bench, as parallel."""
    slots = 4 * (os.cpu_count() or 2)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(server_rate(file, slots))
        theirs.append(batched_bench_rate(file, slots))
        print(f"{file.name}: llama-server {ours[-1]:.1f}, llama-batched-bench {theirs[-1]:.1f} tokens/s", flush=True)
    return {
        "parallel": slots, "prompt_tokens": PROMPT_TOKENS, "reply_tokens": REPLY_TOKENS,
        "llama_server_tokens_per_second": ours, "llama_batched_bench_tokens_per_second": theirs,
        "ratio": spread(ours, theirs),
    }  # fmt: skip


def server_rate(file: Path, slots: int) -> float:
    (artefact,) = find_artefacts([str(file)])
    # Words that differ from the first on, so that no slot finds a prompt in its cache; one word is about one token.
    words = _WORDS.split()
    prompts = [
        [{"role": "user", "content": " ".join(words[(k * n + k) % len(words)] for n in range(PROMPT_TOKENS - 10))}]
        for k in range(1, 2 * slots + 1)
    ]
    with open_engine(artefact, choose_runtime(artefact), Room(2 * PROMPT_TOKENS, REPLY_TOKENS)) as engine:
        list(engine.generate(prompts[:1], Sampling(REPLY_TOKENS)))
        started = time.monotonic()
        replies = [completion for batch in engine.generate(prompts, Sampling(REPLY_TOKENS)) for _, completion in batch]
        seconds = time.monotonic() - started
    return (len(prompts) * PROMPT_TOKENS + sum(reply.tokens for reply in replies)) / seconds


def batched_bench_rate(file: Path, slots: int) -> float:
    command = [
        str(program("llama-batched-bench")), "-m", str(file), "-c", str(slots * (PROMPT_TOKENS + REPLY_TOKENS)),
        "-npp", str(PROMPT_TOKENS), "-ntg", str(REPLY_TOKENS), "-npl", str(slots), "-t", str(os.cpu_count() or 2),
        "-ctk", "f32", "-ctv", "f32",
    ]  # fmt: skip
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row = re.search(rf"^\|\s*{PROMPT_TOKENS} \|.*\|\s*([0-9.]+) \|$", printed, re.MULTILINE)
    assert row, printed
    return float(row[1])


if __name__ == "__main__":
    main()
