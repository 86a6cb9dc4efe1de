"""lm-evaluation-harness on one model folder, its gsm8k task changed only in data file, question text, shots and prompt.

Run by ``benchmarks.evaluation`` in a process of its own, since Unsloth patches transformers when it is imported. Prints
one JSON object: questions per second of generation alone, and each reply with the harness's own verdicts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from kit.prompts import default_system_prompt

TASK = """
include: {gsm8k}
task: gsm8k_here
dataset_path: json
dataset_name: null
dataset_kwargs: {{data_files: {{train: {data}, test: {data}}}}}
doc_to_text: "{{{{question}}}}"
num_fewshot: 0
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--max-tokens", type=int)
    args = parser.parse_args()

    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    gsm8k = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    model = HFLM(args.model, dtype="float32", batch_size=args.batch_size, device="cpu")
    generate, seconds = model.generate_until, []

    def timed(*arguments, **options):
        started = time.monotonic()
        replies = generate(*arguments, **options)
        seconds.append(time.monotonic() - started)
        return replies

    model.generate_until = timed
    with tempfile.TemporaryDirectory() as folder:
        task = TASK.format(gsm8k=gsm8k, data=Path(args.data).resolve())
        (Path(folder) / "gsm8k_here.yaml").write_text(task, encoding="utf-8")
        result = lm_eval.simple_evaluate(
            model, tasks=["gsm8k_here"], task_manager=TaskManager(include_path=folder), limit=args.limit,
            apply_chat_template=True, system_instruction=default_system_prompt(), log_samples=True, bootstrap_iters=0,
            gen_kwargs={"max_gen_toks": args.max_tokens, "do_sample": False},
        )  # fmt: skip
    replies: dict[int, dict] = {}
    for sample in result["samples"]["gsm8k_here"]:
        line = replies.setdefault(sample["doc_id"], {"question": sample["doc"]["question"]})
        line |= {"gold": sample["doc"]["answer"], "reply": sample["resps"][0][0]}
        line[sample["filter"]] = bool(sample["exact_match"])
    rate = args.limit / sum(seconds)
    json.dump({"questions_per_second": rate, "replies": [replies[i] for i in sorted(replies)]}, sys.stdout)


if __name__ == "__main__":
    main()
