"""A model of exactly Qwen2.5-0.5B's shape with random weights, for machines that cannot reach the Hub.

python -m tests.gpu.random_model FOLDER [TOKENIZER_FOLDER]
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from kit.planning.model_shape import OWN_CONFIG


def make_random_model(folder: Path, tokenizer: Path) -> Path:
    """Write the model, 1 GB in bfloat16, with the tokenizer of another folder."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen2ForCausalLM(Qwen2Config(**OWN_CONFIG, eos_token_id=151645, bos_token_id=151643)).bfloat16()
    model.save_pretrained(folder)
    for file in tokenizer.iterdir():
        if "token" in file.name or file.name == "chat_template.jinja":
            shutil.copy(file, folder / file.name)
    return folder


if __name__ == "__main__":
    make_random_model(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "runs/demo-base"))
