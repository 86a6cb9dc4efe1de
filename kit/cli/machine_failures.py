"""What a library's exception says of the machine: is memory used up, did the card give up?"""

from __future__ import annotations


def is_out_of_memory(error: Exception) -> bool:
    """Did the machine's or the card's memory run out, in whichever words?"""
    said = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in said for words in ("out of memory", "can't allocate memory", "cannot allocate memory"))
    )


def is_lost(error: Exception) -> bool:
    """Did the card's driver give up on this process? Nothing that is tried on the card afterwards can work."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)
