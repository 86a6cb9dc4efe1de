"""Which packages made this? Recorded beside everything that a run writes."""

from __future__ import annotations

import importlib.metadata

from kit.llama_cpp import build as llama_cpp

PACKAGES = ("unsloth", "trl", "transformers", "peft", "bitsandbytes", "datasets", "torch", "vllm")


def installed_versions() -> dict[str, str]:
    """The versions of the packages that matter and are installed, and of the pinned llama.cpp."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"llama.cpp": f"of llama-cpp-python {llama_cpp.VERSION}"}
