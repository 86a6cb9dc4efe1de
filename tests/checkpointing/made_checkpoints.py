"""A run folder with checkpoints that nobody trained."""

import os

from kit.checkpointing.checkpoints import seal_checkpoint
from kit.storage.run_folder import RunFolder, append_jsonl


def save(folder, step, keep=3):
    partial = folder / ".partial" / f"checkpoint-{step}"
    (partial / "ref").mkdir(parents=True)
    (partial / "adapter_model.safetensors").write_bytes(os.urandom(5000))
    (partial / "optimizer.pt").write_bytes(os.urandom(2000))
    (partial / "ref" / "adapter_model.safetensors").write_bytes(os.urandom(500))
    return seal_checkpoint(partial, folder, step, keep)


def made_run(path):
    run = RunFolder(path)
    run.checkpoints.mkdir(parents=True)
    run.write({"settings": {}})
    for step in (2, 4, 6):
        save(run.checkpoints, step)
    append_jsonl(run.metrics_file, *({"step": step} for step in range(1, 8)))
    return run


def truncate(file):
    file.write_bytes(file.read_bytes()[:100])
