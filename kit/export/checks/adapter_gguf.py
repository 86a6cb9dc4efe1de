"""Does an adapter's GGUF, as llama.cpp reckons it, add to each matrix of the base what PEFT's merge adds?"""

from __future__ import annotations

from pathlib import Path

from kit.export.checks.check import Check
from kit.llama_cpp.adapter_gguf import AdapterGguf
from kit.llama_cpp.gguf import GgufFile
from kit.models.merged_tensors import merged_tensors

# Of the change's size: two ways to multiply in float32, and base + change - base, which loses the base's last place.
_ALLOWED, _LAST_PLACE = 0.01, 2.0**-23


def adds_the_change(file: Path, base_gguf: Path, adapter: Path, base: str) -> Check:
    """Each trained tensor is in the file, with its change, and no other. One tensor is held at a time.

    The converter takes one scale for all matrices, and leaves out or drops what is no pair of factors: this is where
    that is seen.

    Args:
        file: the adapter's GGUF.
        base_gguf: one of its base.
        adapter: PEFT's folder, which it was made from.
        base: folder or Hub id of the base's 16-bit weights.
    """
    of_base = GgufFile(base_gguf)
    ours = AdapterGguf(file, of_base)
    matrices, farthest, wrong = 0, 0.0, []
    for name, original, expected in merged_tensors(adapter, base):
        added = ours.change(name)
        if expected is not None and expected.shape != original.shape:
            wrong.append(f"{name} has another shape than the base's")
            continue
        wanted = original.float() * 0 if expected is None else expected - original.float()
        size = wanted.norm().item()
        if added is None:
            if size:
                wrong.append(f"{name} was trained and is not in it")
            continue
        matrices += 1
        found = wanted.new_tensor(of_base.in_order(added, name, wanted.numpy()))
        distance, noise = (found - wanted).norm().item(), _LAST_PLACE * original.float().norm().item()
        farthest = max(farthest, distance / size if size else 0.0)
        if not distance <= _ALLOWED * size + noise:  # NaN too
            wrong.append(f"what it adds to {name} is {distance / size if size else float('inf'):.2g} of the change off")
    numbers = {"matrices": matrices, "farthest": farthest, "allowed": _ALLOWED, "wrong": len(wrong)}
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        says = f"{wrong[0]}{more}: it is not this adapter, export it again"
    else:
        says = f"adds to {matrices} matrices what was trained, the farthest off by {farthest:.1g} ({_ALLOWED} allowed)"
    return Check(file.name, "carries_adapter", not wrong and matrices > 0, says, numbers)
