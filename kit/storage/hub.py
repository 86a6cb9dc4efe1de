"""Models and data of the Hub: what their names say, whether they can be had, fetching them.

Asked before anything heavy is loaded, so that a typo costs a second and not a minute.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from kit.cli.errors import UserError, first_line
from kit.storage.weight_files import (
    ADAPTER_CONFIG,
    SECOND_COPY,
    check_model_weights,
    is_quantized,
    tensor_files,
)

TIMEOUT_S = 10
_DATA_SUFFIXES = {".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".gz", ".bz2", ".xz", ".txt", ".xlsx"}
_PREQUANTIZED = re.compile(r"(-unsloth)?-bnb-4bit$")  # repositories that hold 4-bit weights
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_NO_OWNERS = (".", "runs/", "models/", "datasets/", "spaces/")  # paths; the last three the Hub lets nobody be called by


def is_offline() -> bool:
    """Has the user said that the Hub is not to be asked?"""
    from huggingface_hub import constants  # its reading of all the variables that say so

    return bool(constants.HF_HUB_OFFLINE)


def is_hub_id(name: str) -> bool:
    """Does ``name`` look like OWNER/NAME, and not like a path?"""
    return bool(_HUB_ID.fullmatch(name)) and not name.startswith(_NO_OWNERS)


def is_data_file(name: str) -> bool:
    """Is ``name`` a file, or does it end as a data file does, so that no Hub id can be meant?"""
    return Path(name).is_file() or Path(name).suffix.lower() in _DATA_SUFFIXES


def is_remote(name: str) -> bool:
    """A Hub id, and no path that is here or that ends as a data file does."""
    return is_hub_id(name) and not Path(name).exists() and not is_data_file(name)


def sixteen_bit_name(model: str) -> str:
    """The repository with the 16-bit weights of a model that is named by its 4-bit one. A path stays as it is: what
    lies beside it under a shorter name may be another model.

    >>> sixteen_bit_name("unsloth/Qwen2.5-0.5B-Instruct-unsloth-bnb-4bit")
    'unsloth/Qwen2.5-0.5B-Instruct'
    >>> sixteen_bit_name("models/mine-bnb-4bit")
    'models/mine-bnb-4bit'
    """
    return _PREQUANTIZED.sub("", model) if is_remote(model) else model


def revision(model: str) -> str:
    """The commit of a Hub model: of the copy on this machine, else of the one that would be fetched.

    Raises:
        UserError: there is no copy here and the Hub cannot be reached.
    """
    known = _hub_cache() / f"models--{model.replace('/', '--')}" / "refs" / "main"
    if known.is_file():
        return known.read_text(encoding="utf-8").strip()
    from huggingface_hub import HfApi

    try:
        return str(HfApi().repo_info(model, timeout=TIMEOUT_S).sha)
    except Exception as error:  # each network library brings its own kinds
        raise UserError(
            f"{model}: the Hub cannot be reached ({type(error).__name__}), check the network or name a local path"
        ) from None


def is_adapter_repository(model: str) -> bool:
    """Does a Hub repository hold an adapter? By the copy on this machine, else by asking the Hub."""
    if _holds_adapter(model):
        return True
    if is_offline() or _is_cached(model, "model"):
        return False
    from huggingface_hub import HfApi

    try:
        return HfApi().file_exists(model, ADAPTER_CONFIG)
    except Exception:  # each network library brings its own kinds; what needs the model will say so
        return False


def local_folder(model: str) -> Path:
    """The folder that holds a model's files: the model itself, or the Hub client's copy, with or without its weights.

    Raises:
        UserError: it is a Hub model of which configuration and tokenizer are not on this machine.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import try_to_load_from_cache

    # Asked for the whole snapshot, the Hub's client would miss each file that nothing here reads, such as the README.
    config = try_to_load_from_cache(model, "config.json") if is_hub_id(model) else None
    folder = Path(config).parent if isinstance(config, str) else None
    if folder and any((folder / name).is_file() for name in _VOCABULARIES):
        return folder
    raise UserError(f"{model} is not on this machine: load it once, or name a local path")


def folder_here(model: str) -> Path | None:
    """As ``local_folder``; ``None`` where it is not on this machine."""
    try:
        return local_folder(model)
    except UserError:
        return None


def model_file(model: str, name: str) -> Path | None:
    """One small file of a model that is here, fetched beside it where need be; ``None`` where none can be had.

    Raises:
        UserError: the model is not on this machine.
    """
    folder = local_folder(model)
    if (folder / name).is_file():
        return folder / name
    if folder == Path(model) or is_offline():
        return None
    from huggingface_hub import hf_hub_download

    try:  # of the same commit: asked for the newest, the Hub's client would take another folder for the model's
        return Path(hf_hub_download(model, name, revision=folder.name, etag_timeout=TIMEOUT_S))
    except Exception:  # each network library brings its own kinds, and the Hub one for what is not there
        return None


def weights_bytes(model: str) -> int:
    """The size of a model's weights; 0 where nobody here knows."""
    try:
        folder = local_folder(model)
        check_model_weights(folder, model)  # of a Hub model there may be only a part yet
        return sum(file.stat().st_size for file in tensor_files(folder))
    except UserError:
        if is_offline():
            return 0
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(model, files_metadata=True, timeout=TIMEOUT_S).siblings or []
    except Exception:  # each network library brings its own kinds
        return 0
    weights = [file for file in files if file.rfilename.endswith(".safetensors")]
    return sum(file.size or 0 for file in weights if not file.rfilename.startswith(SECOND_COPY))


def fetch(model: str) -> None:
    """Fetch what is not here yet of a Hub model; one that is here is not asked about.

    Raises:
        UserError: it cannot be fetched.
    """
    if not is_remote(model) or _is_cached(model, "model"):
        return
    from huggingface_hub import snapshot_download

    try:
        needed = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
        folder = snapshot_download(model, allow_patterns=needed, ignore_patterns=[f"{SECOND_COPY}*"])
        check_model_weights(Path(folder), folder)  # the Hub's client gives what it has where the Hub is out of reach
    except Exception as error:  # each network library brings its own kinds
        raise UserError(
            f"{model} could not be fetched ({first_line(error)}): check the network and the disk, and run the same "
            "command again (merge_and_export.py and evaluate.py take a local path too: --base)"
        ) from None


def check_model(model: str, option: str = "--model") -> None:
    """Refuse a folder or Hub id that cannot be loaded.

    Raises:
        UserError: with the reason and the remedy.
    """
    folder, shown = Path(model), f"{option} {model}".strip()
    if not folder.exists() and is_hub_id(model):
        _check_hub(model, "model", option)
    elif folder.is_file():
        name = "the Hub id or folder of its safetensors" if folder.suffix == ".gguf" else "the model folder it lies in"
        raise UserError(f"{shown} is a file, of which nothing is trained or merged: name {name}")
    elif not folder.is_dir():
        raise UserError(f"{shown} does not exist: name a model folder, or a Hub id as OWNER/NAME")
    elif not (folder / "config.json").is_file():
        has_gguf = any(folder.glob("*.gguf")) and not option  # without one, it is to be scored
        remedy = "name one of the GGUF files in it" if has_gguf else "name one that has, or a Hub id"
        raise UserError(f"{shown} is no model folder (it has no config.json): {remedy}")
    else:
        check_model_weights(folder, shown)


def check_base(model: str, option: str, quantized: str = "") -> None:
    """Refuse a base model of which the 16-bit weights, that merging and scores need, cannot be had.

    Args:
        model: as training or the adapter names it; a 4-bit repository of the Hub stands for its 16-bit one.
        option: what the user knows it by.
        quantized: what else there is to do where its weights are quantized.

    Raises:
        UserError: with the reason and the remedy.
    """
    try:
        check_model(sixteen_bit_name(model), option)
    except UserError as error:
        raise UserError(*(f"{problem} (--base names another)" for problem in error.problems)) from None
    if is_quantized(model):
        raise UserError(
            f"{option} {model} holds quantized weights (its config.json has a quantization_config), and the 16-bit "
            f"ones are needed: name their folder or Hub id with --base{quantized}"
        )


def check_dataset(dataset: str) -> None:
    """Refuse a data set's Hub id that cannot be had.

    Raises:
        UserError: with the reason and the remedy.
    """
    if Path(dataset).is_dir():
        raise UserError(f"--dataset {dataset} is a folder: name the data file in it")
    if not is_hub_id(dataset):
        raise UserError(f"--dataset {dataset} is no file: give a data file, or a Hub id as OWNER/NAME")
    _check_hub(dataset, "dataset", "--dataset")


def _check_hub(repository: str, kind: str, option: str) -> None:
    if _is_cached(repository, kind):
        return
    shown = f"{option} {repository}".strip()
    if is_offline():
        here = "only in part" if _snapshots(repository, kind).is_dir() else "not"
        raise UserError(f"{shown} is {here} on this machine and HF_HUB_OFFLINE is set: unset it, or name a local path")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        HfApi().repo_info(repository, repo_type=kind, timeout=TIMEOUT_S)
    except GatedRepoError:
        raise UserError(f"{shown} is gated: accept its terms on the Hub and log in with `hf auth login`") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{shown} is neither here nor is it on the Hub: check the spelling, or log in if it is private"
        ) from None
    except Exception as error:  # each network library brings its own kinds
        reason = type(error).__name__
        raise UserError(
            f"{shown}: the Hub cannot be reached ({reason}), check the network or name a local path"
        ) from None


def _is_cached(repository: str, kind: str) -> bool:
    """Has the Hub client, or ``datasets``, a copy of it? Of a model all weights: a fetch may have been cut off."""
    if kind == "model":
        try:
            check_model_weights(local_folder(repository), repository)
        except UserError:
            return _holds_adapter(repository)
        return True
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or _client_folder("HF_HOME") / "datasets")
    copies = (_snapshots(repository, kind), prepared / repository.replace("/", "___"))
    return any(copy.is_dir() and any(copy.iterdir()) for copy in copies)


def _holds_adapter(repository: str) -> bool:
    return any(_snapshots(repository, "model").glob(f"*/{ADAPTER_CONFIG}"))


def _snapshots(repository: str, kind: str) -> Path:
    return _hub_cache() / f"{kind}s--{repository.replace('/', '--')}" / "snapshots"


def _hub_cache() -> Path:
    return _client_folder("HF_HUB_CACHE")


def _client_folder(place: str) -> Path:
    """A folder of the Hub client's, wherever the environment has put it."""
    from huggingface_hub import constants

    return Path(getattr(constants, place)).expanduser()
