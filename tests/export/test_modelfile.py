"""The Ollama Modelfile: a valid name, the same prompt, and nothing that Ollama adds by itself."""

import re

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kit.export.modelfile import OLLAMAS_CONTEXT, modelfile, ollama_name, ollama_template
from kit.storage.run_folder import RunFolder

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = CHATML.replace("assistant\n{%", "assistant\n<think>\n{%")
METADATA = CHATML.replace(
    "{{ m.content }}", "{{ '## Metadata\n\n' ~ m.content ~ '\n\n' if m.role == 'system' else m.content }}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.role == 'system' %}Today Date: {{ strftime_now('%d %b %Y') }}\n\n{% endif %}{{ m.content }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% set system = messages[0].content %}{% for m in messages[1:] %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ system ~ '\n\n' if loop.first }}{{ m.content }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL_NEMO = (
    "{{ bos_token }}{% for m in messages[1:] %}{% if m.role == 'user' %}[INST]"
    "{{ messages[0].content ~ '\n\n' if loop.last }}{{ m.content }}[/INST]{% else %}{{ m.content }}</s>{% endif %}"
    "{% endfor %}"
)
DISTILL = (
    "{{ bos_token }}{{ messages[0].content }}{% for m in messages[1:] %}{% if m.role == 'user' %}<User>{{ m.content }}"
    "{% else %}<Assistant>{{ m.content }}</s>{% endif %}{% endfor %}{% if add_generation_prompt %}<Assistant><think>\n"
    "{% endif %}"
)


class Tokenizer:
    """What transformers' tokenizers do with a chat template."""

    def __init__(self, chat_template, bos_token=None, eos_token="<|im_end|>"):
        self.chat_template, self.bos_token, self.eos_token = chat_template, bos_token, eos_token

    def apply_chat_template(self, messages, **arguments):
        template = ImmutableSandboxedEnvironment(trim_blocks=True).from_string(self.chat_template)
        known = {"strftime_now": lambda _: "today", "bos_token": self.bos_token, "eos_token": self.eos_token}
        return template.render(messages=messages, **(known | arguments))


KINDS = {
    "ChatML": Tokenizer(CHATML),
    "thinking": Tokenizer(THINKING),
    "metadata": Tokenizer(METADATA),
    "Llama": Tokenizer(LLAMA.replace("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"), "<|begin|>", "<|eot_id|>"),
    "Gemma": Tokenizer(GEMMA, "<bos>", "<eos>"),
    "distill": Tokenizer(DISTILL, "<s>", "</s>"),
}


def filled(template, system, prompt):
    """What Ollama makes of it before the reply."""
    text = re.sub(r"{{ else }}.*?{{ end }}", "", template.split("{{ .Response }}")[0], flags=re.DOTALL)
    for mark, value in (("{{ if .System }}", ""), ("{{ end }}", ""), (" .System ", system), (" .Prompt ", prompt)):
        text = text.replace(f"{{{{{mark}}}}}" if mark[0] == " " else mark, value)
    return text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adds_bos", [True, False])
def test_the_prompt_is_that_of_the_chat_template_with_one_bos(kind, adds_bos):
    tokenizer = KINDS[kind]
    begin = tokenizer.bos_token if adds_bos and tokenizer.bos_token else ""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "9 + 9?"}]
    asked = begin + filled(ollama_template(tokenizer, adds_bos), "Be brief.", "9 + 9?")
    assert asked == tokenizer.apply_chat_template(messages, add_generation_prompt=True)


def test_no_day_is_frozen_in_and_the_one_that_is_there_is_said():
    text = modelfile("x.gguf", Tokenizer(LLAMA, "<|begin|>", "<|eot_id|>"), "Be brief.", 512)
    assert "Today Date: 26 Jul 2024" in text
    assert "the day it is; here that is 26 July 2024" in text
    assert "today" not in text
    assert "<|begin|>" not in text


def test_where_no_template_can_be_written_it_is_said_which_ollama_needs_one():
    text = modelfile("x.gguf", Tokenizer(MISTRAL_NEMO, "<s>", "</s>"), "Be brief.", 512)
    assert "\nTEMPLATE" not in text
    assert "August 2026" in text
    assert "An older one knows a list of templates" in text


def test_what_ollama_adds_by_itself_is_switched_off():
    text = modelfile("x.gguf", KINDS["ChatML"], "Be brief.", 512)
    for setting in ("repeat_penalty 1", "top_k 0", "top_p 1", "min_p 0", "temperature 0", "num_ctx 512"):
        assert f"\nPARAMETER {setting}\n" in text


def test_a_system_prompt_that_would_end_the_text_it_stands_in_is_left_to_who_asks():
    text = modelfile("x.gguf", KINDS["ChatML"], 'Reply as\n"""\nPARAMETER seed 1\n"""', 512)
    assert "\nSYSTEM" not in text
    assert "seed" not in text
    assert "# The system prompt holds three quotation marks" in text
    assert '\nSYSTEM """Say "yes" or "no"."""\n' in modelfile("x.gguf", KINDS["ChatML"], 'Say "yes" or "no".', 512)


def test_every_run_has_a_name_that_ollama_takes():
    names = {
        "mi modelo (año 2)": "mi-modelo-ano-2",
        "a (2).q8_0": "a-2.q8_0",
        "Qwen2.5_x": "qwen2.5_x",
        "模型": "model",
        "--": "model",
    }
    assert {name: ollama_name(name) for name in names} == names
    assert len(ollama_name("x" * 300)) <= 80
    assert "# ollama create mi-modelo.q8_0 -f" in modelfile("mi modelo.q8_0.gguf", KINDS["ChatML"], "", 1)


def test_the_modelfile_renders_what_the_chat_template_renders(chain):
    from transformers import AutoTokenizer

    run = RunFolder(chain / "short")
    tokenizer = AutoTokenizer.from_pretrained(str(run.merged))
    template = ollama_template(tokenizer)
    filled = template.replace("{{ if .System }}", "").replace("{{ end }}", "")
    for mark, text in ((".System", "Be brief."), (".Prompt", "9 + 9?"), (".Response", "18")):
        filled = filled.replace(f"{{{{ {mark} }}}}", text)
    messages = [("system", "Be brief."), ("user", "9 + 9?"), ("assistant", "18")]
    chat = [{"role": role, "content": content} for role, content in messages]
    assert filled == tokenizer.apply_chat_template(chat, tokenize=False)
    text = modelfile("x.gguf", tokenizer, "Be brief.", OLLAMAS_CONTEXT)  # a question needs 552; who chats, more
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert "PARAMETER temperature 0\nPARAMETER num_ctx 4096\n" in text
    written = run.modelfile.read_text(encoding="utf-8").replace("short.q8_0", "x")
    assert text == written.replace(run.read()["system_prompt"], "Be brief.")
