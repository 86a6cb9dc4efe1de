"""How large is a model? Read from its ``config.json``, so that a plan needs neither weights nor a card.

A decoder of the Llama family (Qwen2, Qwen3, Llama, Mistral) has in each of its layers, for hidden size h, MLP size i,
q = heads x head size and k = key-value heads x head size:

    attention   h*q (query) + 2*h*k (key, value) + q*h (output)        MLP   3*h*i (gate, up, down)

and besides an embedding of vocabulary x h, which is the output head too where the two are tied.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.cli.errors import UserError, first_line
from kit.storage.hub import TIMEOUT_S, is_hub_id, is_offline, local_folder

# The kit's own model, so that its plan can be made without a network. Source: its config.json on the Hub.
_OWN_MODEL = "unsloth/Qwen2.5-0.5B-Instruct"
OWN_CONFIG = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True, "max_position_embeddings": 32768,
}  # fmt: skip


@dataclass(frozen=True)
class ModelShape:
    """The sizes that memory follows from, all in elements."""

    hidden: int
    intermediate: int
    layers: int
    query: int
    key_value: int
    vocabulary: int
    tied: bool
    head: int = 64

    @property
    def _matrices(self) -> list[tuple[int, int]]:
        h, i, q, k = self.hidden, self.intermediate, self.query, self.key_value
        return [(h, q), (h, k), (h, k), (q, h), (h, i), (h, i), (i, h)]

    @property
    def linear_parameters(self) -> int:
        """Weights of the seven matrices in all layers: what is held in 4 bits."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self._matrices)

    @property
    def other_parameters(self) -> int:
        """Embedding and output head (norms and biases are lost beside them): always held in 16 bits."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    def lora_parameters(self, rank: int) -> int:
        """An adapter of ``rank`` on the seven matrices: rank x (inputs + outputs) each."""
        return self.layers * sum(rank * (inputs + outputs) for inputs, outputs in self._matrices)

    @property
    def kv_elements_per_token(self) -> int:
        """What the KV cache keeps of a token: one key and one value in each layer."""
        return 2 * self.layers * self.key_value


def model_shape(model: str) -> ModelShape:
    """The shape of a model folder, a ``config.json``, or a Hub id (of which only config.json is fetched).

    Raises:
        UserError: there is no config.json to be had, or it is of a kind that the plan does not know.
    """
    return shape_of(_config(model), model)


def known_shape(model: str) -> ModelShape | None:
    """The shape of a model, or ``None`` with a sentence where it is not known: training can go on without a plan."""
    try:
        return model_shape(model)
    except UserError as error:
        print(f"no memory plan: {error}")
        return None


def shape_of(config: dict[str, Any], model: str) -> ModelShape:
    """The shape that a config describes.

    Raises:
        UserError: it is no dense decoder of the Llama family.
    """
    if any(key in config for key in ("num_experts", "num_local_experts", "vision_config", "kv_lora_rank")):
        raise UserError(f"--model {model} is no plain text decoder: the plan knows the Qwen2 and Llama family")
    try:
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        head = config.get("head_dim") or hidden // heads
        return ModelShape(
            hidden=hidden,
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            query=heads * head,
            key_value=config.get("num_key_value_heads", heads) * head,
            vocabulary=config["vocab_size"],
            # Gemma's configs leave out what is true of all of them.
            tied=bool(config.get("tie_word_embeddings", str(config.get("model_type")).startswith("gemma"))),
            head=head,
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"--model {model}: its config.json lacks {first_line(error)}, which the plan needs") from None


def _config(model: str) -> dict[str, Any]:
    path = Path(model)
    file = path if path.suffix == ".json" else path / "config.json"
    if not file.is_file() and (path.exists() or not is_hub_id(model)):
        raise UserError(f"--model {model} has no config.json: name a model folder, a config.json or a Hub id")
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else _hub_config(model)
        config = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model}: its config.json cannot be read ({first_line(error)})") from None
    if not isinstance(config, dict):
        raise UserError(f"--model {model}: its config.json is no model's config")
    return config


def _hub_config(model: str) -> str:
    """The text of a Hub model's config.json, from the copy on this machine if there is one."""
    try:
        return (local_folder(model) / "config.json").read_text(encoding="utf-8")
    except (UserError, OSError):
        pass
    if model == _OWN_MODEL:
        return json.dumps(OWN_CONFIG)
    if is_offline():
        raise UserError(f"--model {model} is not on this machine and HF_HUB_OFFLINE is set: unset it, or name a folder")
    from huggingface_hub import hf_hub_download

    with tempfile.TemporaryDirectory() as folder:  # in the cache, a config alone would pass for the whole model
        try:
            fetched = hf_hub_download(model, "config.json", local_dir=folder, etag_timeout=TIMEOUT_S)
        except Exception as error:  # each network library brings its own kinds
            raise UserError(f"--model {model}: its config.json cannot be had ({type(error).__name__})") from None
        return Path(fetched).read_text(encoding="utf-8")
