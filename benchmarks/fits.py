"""Which card does each recipe need, and how long does it take there? The plan's word, for the table in docs/models.md.

    python -m benchmarks.fits

The shapes are those of the models' config.json on the Hub, so that no network is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError
from kit.planning.gpus import NAMES, card_named
from kit.planning.model_shape import OWN_CONFIG, shape_of
from kit.planning.plan import make_plan
from kit.planning.run_cost import estimate_run_cost
from kit.settings.reading import read_settings

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


def _config(hidden: int, layers: int, heads: int, kv: int, mlp: int, vocabulary: int, head: int = 0) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
             "num_key_value_heads": kv, "intermediate_size": mlp, "vocab_size": vocabulary}  # fmt: skip
    return sizes | ({"head_dim": head} if head else {}) | {"tie_word_embeddings": True}


CONFIGS = {
    "qwen2.5-0.5b": OWN_CONFIG,
    "qwen2.5-1.5b": _config(1536, 28, 12, 2, 8960, 151936),
    "qwen2.5-3b": _config(2048, 36, 16, 2, 11008, 151936),
    "qwen2.5-coder-0.5b": OWN_CONFIG,
    "qwen3-0.6b": _config(1024, 28, 16, 8, 3072, 151936, head=128),
    "qwen3-1.7b": _config(2048, 28, 16, 8, 6144, 151936, head=128),
    "smollm2-135m": _config(576, 30, 9, 3, 1536, 49152),
    "smollm2-360m": _config(960, 32, 15, 5, 2560, 49152),
    "smollm2-1.7b": _config(2048, 24, 32, 32, 8192, 49152),
    "llama3.2-1b": _config(2048, 16, 32, 8, 8192, 128256, head=64),
    "llama3.2-3b": _config(3072, 28, 24, 8, 8192, 128256, head=128),
    "gemma3-270m": _config(640, 18, 4, 1, 2048, 262144, head=256),
    "gemma3-1b": _config(1152, 26, 4, 1, 6912, 262144, head=256),
}


def smallest_card(name: str) -> tuple[str, float]:
    """The card with the least memory that a recipe fits, and the plan's peak there in GiB, at most.

    Raises:
        UserError: it fits none.
    """
    settings, problems = read_settings(["--config", str(RECIPES / f"{name}.yaml")], "")
    problems.raise_any()
    shape = shape_of(CONFIGS[name], settings.model)
    cards = sorted((card_named(card).memory_gib, card) for card in NAMES if card_named(card).memory_gib)
    for _, card in cards:
        try:
            return card, make_plan(settings, card_named(card), shape).peak_gib
        except UserError:
            continue
    raise UserError(f"{name} fits no card that is known")


def hours_on(name: str, card: str) -> float:
    """Hours of the recipe's steps on a card, without loading, held-out questions and a warm start."""
    settings, _ = read_settings(["--config", str(RECIPES / f"{name}.yaml")], "")
    shape, machine = shape_of(CONFIGS[name], settings.model), card_named(card)
    plan = make_plan(settings, machine, shape)
    assert plan.layout is not None
    return settings.max_steps * estimate_run_cost(shape, plan.settings, plan.layout, str(machine.card)).step_s / 3600


def rows() -> Iterator[str]:
    """A line of the table for each recipe."""
    for name in CONFIGS:
        card, peak = smallest_card(name)
        yield f"| `{name}` | `{card}` | {peak:.1f} | {hours_on(name, 't4'):.1f} |"


if __name__ == "__main__":
    print("| recipe | smallest card | GiB there | hours on a T4 |", "|---|---|---|---|", *rows(), sep="\n")
