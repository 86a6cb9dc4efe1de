"""The demo's base model with its vocabulary cut down to the tokens that its problems can meet.

    python -m benchmarks.small_vocabulary runs/demo-base runs/demo-base-small

Most of a step on the demo's base is spent on 151,936 tokens of which some hundred ever occur. A study of what the model
learns needs many steps and none of the others: what little probability they have is shared out, and a step takes a
fraction of the time. For benchmarks alone: llama.cpp does not know such a vocabulary.
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from demo.base import make_examples

EXAMPLES = 20_000  # in which every token of the demo's texts occurs


def cut(base: Path, folder: Path) -> None:
    """Write the model in ``base`` to ``folder`` with the tokens of the demo's texts, and those they are merged from."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = AutoTokenizer.from_pretrained(base)
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, merges = whole["model"]["vocab"], [tuple(pair) for pair in whole["model"]["merges"]]
    met = {token for ids, _ in islice(make_examples(tokenizer, seed=0), EXAMPLES) for token in ids}
    kept = with_parts(met | single_bytes(vocabulary), vocabulary, merges)
    added = [token for token in whole["added_tokens"] if token["id"] in met | set(tokenizer.all_special_ids)]
    old_ids = sorted(kept - {token["id"] for token in added}) + [token["id"] for token in added]
    new_ids = {old: new for new, old in enumerate(old_ids)}
    words = {old: word for word, old in vocabulary.items()}
    whole["model"]["vocab"] = {words[old]: new_ids[old] for old in old_ids if old in words}
    whole["model"]["merges"] = [
        pair for pair in merges if all(vocabulary.get(part) in kept for part in (*pair, "".join(pair)))
    ]
    whole["added_tokens"] = [token | {"id": new_ids[token["id"]]} for token in added]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    small = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token=tokenizer.eos_token, pad_token=tokenizer.pad_token,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip
    small.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    rows = model.get_input_embeddings().weight.detach()[torch.tensor(old_ids)]
    model.resize_token_embeddings(len(old_ids))
    model.get_input_embeddings().weight.data.copy_(rows)
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = small.eos_token_id, small.pad_token_id
    model.save_pretrained(folder)


def single_bytes(vocabulary: dict[str, int]) -> set[int]:
    """The 256 tokens of one byte, from which all others are merged."""
    return {token for word, token in vocabulary.items() if len(word) == 1}


def with_parts(kept: set[int], vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> set[int]:
    """``kept`` with every token that a kept one may be merged from."""
    parts: dict[int, set[int]] = {}
    for first, second in merges:
        parts.setdefault(vocabulary[first + second], set()).update((vocabulary[first], vocabulary[second]))
    found, waiting = set(), set(kept)
    while waiting:
        token = waiting.pop()
        found.add(token)
        waiting |= parts.get(token, set()) - found
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    cut(args.base, args.folder)


if __name__ == "__main__":
    main()
