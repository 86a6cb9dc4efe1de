"""How far a GGUF file's next-token distribution is from another's, as llama-perplexity measures it."""

from __future__ import annotations

import re
from pathlib import Path

from kit.llama_cpp.build import program
from kit.llama_cpp.running import TOO_SHORT, output_of

_KL_CONTEXT, _KL_CHUNKS = 128, 8


def mean_kl_divergence(
    f16: Path, files: list[Path], text: str, scratch: Path, adapter: Path | None = None
) -> list[float | None]:
    """The mean Kullback-Leibler divergence, in nats a token, of each file's next-token distribution from f16's.

    Measured by llama-perplexity over at most 8 windows of 128 tokens of ``text`` (the second half of each window);
    ``None`` where the text is shorter than two windows, which is what that program needs. With ``adapter``, a GGUF of
    its own, each of ``files`` answers with it.
    """
    words, logits = scratch / "text.txt", scratch / "f16.logits"
    words.write_text(text, encoding="utf-8")
    measure = [
        str(program("llama-perplexity")), "-f", str(words), "--ctx-size", str(_KL_CONTEXT),
        "--batch-size", str(_KL_CONTEXT), "--chunks", str(_KL_CHUNKS), "--kl-divergence-base", str(logits), "-m",
    ]  # fmt: skip
    lora = ["--lora", str(adapter)] if adapter else []
    try:
        printed = output_of([*measure, str(f16)], unless=TOO_SHORT)
        if not logits.exists() or f"at least {2 * _KL_CONTEXT} tokens" in printed:
            return [None] * len(files)
        results = [output_of([*measure, str(file), "--kl-divergence", *lora]) for file in files]
        found = [re.search(r"Mean\s+KLD:\s+(-?[0-9.eE+-]+)", printed) for printed in results]
        return [max(0.0, float(match[1])) if match else None for match in found]
    finally:
        logits.unlink(missing_ok=True)
        words.unlink(missing_ok=True)
