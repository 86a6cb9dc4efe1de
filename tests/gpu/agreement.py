"""Do two engines give the same greedy replies for one artefact? Prints how much of them comes before a difference.

python -m tests.gpu.agreement ARTEFACT DATA ENGINE ENGINE [QUESTIONS]
"""

from __future__ import annotations

import sys
from dataclasses import replace

from kit.generation.artefacts import find_artefacts
from kit.generation.engine import Sampling
from kit.generation.open import open_engine
from kit.generation.runtime import Room, choose_runtime
from kit.prompts import build_prompt
from kit.task.questions import load_questions


def replies(path: str, data: str, engine: str, questions: int, max_tokens: int = 48) -> list[str]:
    """Greedy replies of an artefact through ``engine``, in the order of the questions."""
    rows = load_questions(data, "test", split_of_a_file="test")[:questions]
    prompts = [build_prompt(row["question"]) for row in rows]
    (artefact,) = find_artefacts([path])
    runtime = replace(choose_runtime(artefact), engine=engine)
    with open_engine(artefact, runtime, Room(512, max_tokens, batch_size=16)) as opened:
        batches = opened.generate(prompts, Sampling(max_tokens, seed=1))
        found = {index: reply.text for batch in batches for index, reply in batch}
    return [found[index] for index in range(len(prompts))]


def main() -> None:
    path, data, *engines = sys.argv[1:5]
    questions = int(sys.argv[5]) if len(sys.argv) > 5 else 64
    first, second = (replies(path, data, engine, questions) for engine in engines)
    pairs = list(zip(first, second, strict=True))
    print("AGREEMENT", sum(same(*pair) for pair in pairs) / sum(max(map(len, pair)) for pair in pairs))


def same(a: str, b: str) -> int:
    """How many characters come before the first difference."""
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


if __name__ == "__main__":
    main()
