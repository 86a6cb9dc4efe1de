"""Do two engines give the same greedy replies for one artefact? Prints how much of them comes before a difference.

python -m tests.gpu.agreement ARTEFACT DATA ENGINE ENGINE [QUESTIONS]
"""

from __future__ import annotations

import sys
from dataclasses import replace

from kit.generation.artefacts import find_artefacts
from kit.generation.engines import choose_backend, open_engine
from kit.prompts import build_prompt
from kit.task.questions import load_questions


def replies(path: str, data: str, engine: str, questions: int, max_tokens: int = 48) -> list[str]:
    """Greedy replies of an artefact through ``engine``, in the order of the questions."""
    rows = load_questions(data, "test", split_of_a_file="test")[:questions]
    prompts = [build_prompt(row["question"]) for row in rows]
    (artefact,) = find_artefacts([path])
    backend = replace(choose_backend(artefact), engine=engine)
    with open_engine(artefact, backend, max_tokens, 512, batch_size=16) as opened:
        found = {index: reply.text for batch in opened.generate(prompts, 0.0, 1) for index, reply in batch}
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
