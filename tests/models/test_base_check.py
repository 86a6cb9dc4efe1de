"""What the base decides is decided before training: refused in a sentence, or mended and written down."""

import json
import shutil

import pytest
import yaml
from transformers import AutoTokenizer

from kit.cli.errors import UserError
from kit.models.base_check import PADS, mend_padding
from kit.storage.model_files import template_in
from tests.conftest import run_script, short_training


def edited(chain, folder, **changes):
    """A copy of the chain's base whose tokenizer says something else; ``None`` takes a name away."""
    shutil.copytree(chain / "base", folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}), encoding="utf-8")
    return folder


def train(chain, base, output, **options):
    return run_script(*short_training(chain, output, "--model", base, "--max-steps", "2"), **options)


def no_template(chain, folder):
    base = edited(chain, folder, chat_template=None)
    (base / "chat_template.jinja").unlink(missing_ok=True)
    return base


def no_other_pad(chain, folder):
    """Its pad token is its end of turn, and no token that models keep for padding is there."""
    base = edited(chain, folder, pad_token="<|im_end|>")
    file = base / "tokenizer.json"
    text = file.read_text(encoding="utf-8")
    for number, pad in enumerate(PADS):
        text = text.replace(json.dumps(pad), json.dumps(f"<|other{number}|>"))
    file.write_text(text, encoding="utf-8")
    return base


def tokenizer_unknown_to_llama_cpp(chain, folder):
    base = edited(chain, folder)
    file = base / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["!"], vocabulary["3"] = vocabulary["3"], vocabulary["!"]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")
    return base


def architecture_unknown_to_llama_cpp(chain, folder):
    base = edited(chain, folder)
    config = json.loads((base / "config.json").read_text(encoding="utf-8")) | {"architectures": ["NewForCausalLM"]}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return base


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_template, "has no chat template, so nothing says how"),
        (no_other_pad, "its pad token is its end-of-turn token"),
        (tokenizer_unknown_to_llama_cpp, "cannot become a GGUF file"),
        (architecture_unknown_to_llama_cpp, "cannot become a GGUF file"),
    ],
)
def test_a_base_that_could_not_be_asked_or_exported_is_refused_before_training(chain, tmp_path, make, words):
    refused = train(chain, make(chain, tmp_path / "base"), tmp_path / "run", check=False)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("chat_template.jinja", b"\xff"), ("tokenizer_config.json", b""), ("tokenizer_config.json", b'{"chat_template":')],
)
def test_a_damaged_file_of_a_model_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} cannot be read .*: fetch the model again"):
        template_in(tmp_path)


def test_a_pad_token_that_is_the_end_of_turn_is_mended_recorded_and_exported(chain, tmp_path):
    base = edited(chain, tmp_path / "base", pad_token="<|im_end|>")
    said = train(chain, base, tmp_path / "run").stdout
    assert ": the base has <|im_end|>" in said
    recorded = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text(encoding="utf-8"))
    assert recorded["mended"].startswith("pad token <|")
    run_script("merge_and_export.py", tmp_path / "run", "--gguf", "q8_0")
    checks = json.loads((tmp_path / "run" / "export.json").read_text(encoding="utf-8"))["checks"]
    assert checks["merged"]["tokens"]["pad"] != "<|im_end|>"


def test_a_tokenizer_that_pads_with_its_end_of_turn_gets_its_bases_own_padding(chain):
    """As adapters of other tools are saved."""
    tokenizer = AutoTokenizer.from_pretrained(chain / "base")
    tokenizer.pad_token, own = tokenizer.eos_token, tokenizer.pad_token
    assert mend_padding(tokenizer, str(chain / "base")) == ""
    assert tokenizer.pad_token == own
