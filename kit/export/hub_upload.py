"""Put an export on the Hub: merged weights, GGUF files that passed, Modelfile and model card, in one repository."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kit.cli.errors import UserError, first_line
from kit.storage.hub import is_hub_id, is_offline
from kit.storage.run_folder import RunFolder


def check_repository(repository: str) -> None:
    """Refuse a repository that cannot be written to, before anything is merged.

    Raises:
        UserError: with the reason and the remedy.
    """
    if not is_hub_id(repository):
        raise UserError(f"--push-to-hub {repository} is no Hub id: write OWNER/NAME")
    if is_offline():
        raise UserError("--push-to-hub needs the Hub, and HF_HUB_OFFLINE is set: unset it")
    from huggingface_hub import HfApi

    try:
        HfApi().whoami()
    except Exception as error:  # each network library brings its own kinds
        raise UserError(
            f"--push-to-hub: the Hub does not say who you are ({first_line(error)}): check the network, or log in with "
            "`hf auth login`"
        ) from None


def upload_list(run: RunFolder) -> dict[str, Path]:
    """What is uploaded: path in the repository → file. Weights lie in its root, where transformers looks for them.

    Of GGUF files those of export.json: of others nobody knows what they are.
    """
    passed = [entry["file"] for entry in run.exported()["gguf"].values()]
    files = [file for folder in (run.merged, run.gguf) if folder.is_dir() for file in sorted(folder.iterdir())]
    files = [file for file in files if file.suffix != ".gguf" or file.name in passed]
    about = [run.model_card, run.export_file, run.scores_file]
    return {file.name: file for file in [*files, *about] if file.is_file() and file.suffix != ".partial"}


def _weights_of_others(there: list[str], ours: Iterable[str]) -> list[str]:
    """Weights in a repository that this upload does not replace."""
    return sorted(name for name in set(there) - {*ours} if name.endswith((".gguf", ".safetensors", ".bin")))


def push(run: RunFolder, repository: str, private: bool) -> str:
    """Upload in one commit; returns the repository's address.

    Raises:
        UserError: the Hub refused.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = upload_list(run)
    for file in sorted(set(run.gguf.glob("*.gguf")) - {*files.values()}):
        print(f"  {file.name} stays here: export.json does not know it")
    for name, file in files.items():
        print(f"  {name} ({file.stat().st_size / 1e6:.1f} MB)")
    operations = [CommitOperationAdd(name, str(file)) for name, file in files.items()]
    try:
        address = HfApi().create_repo(repository, private=private, exist_ok=True)
        if private and not HfApi().repo_info(repository).private:
            raise UserError(f"--push-to-hub {repository} is public: add --public if that is meant, or name another")
        if others := _weights_of_others(HfApi().list_repo_files(repository), files):
            print(f"{repository} holds {', '.join(others)} too: remove them there if they are of an earlier export")
        HfApi().create_commit(repository, operations, commit_message="Model, GGUF files, scores and how they were made")
    except UserError:
        raise
    except Exception as error:  # each network library brings its own kinds
        reason = first_line(error)
        raise UserError(f"--push-to-hub {repository} failed ({reason}): the export is whole in {run.path}") from None
    return str(address)
