"""One rule for the prompt's form: refused without a template, fitted where a template takes no system role."""

import json
import shutil

import pytest

from tests.conftest import run_script
from tests.greedy import as_gguf

NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def with_template(chain, folder, template):
    shutil.copytree(chain / "base", folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if template:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def scored(path, chain, output, **options):
    data = chain / "data" / "heldout.jsonl"
    return run_script("evaluate.py", path, "--dataset", data, "--limit", 3, "--output-dir", output, **options)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_model_without_a_chat_template_is_refused_by_every_engine(chain, tmp_path, kind):
    model = with_template(chain, tmp_path / "plain", "")
    path = model if kind == "folder" else as_gguf(model, tmp_path / "plain.gguf")
    refused = scored(path, chain, tmp_path / "scores", check=False)
    assert refused.returncode == 2
    assert "has no chat template" in refused.stderr


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_where_no_system_role_is_taken_the_system_prompt_stands_before_the_question(chain, tmp_path, kind):
    model = with_template(chain, tmp_path / "gemma", NO_SYSTEM)
    path = model if kind == "folder" else as_gguf(model, tmp_path / "gemma.gguf")
    assert "takes no system role" in scored(path, chain, tmp_path / "scores").stdout
