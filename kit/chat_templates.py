"""One rule for the prompt's form, in training, every engine, the gate and the Modelfile.

A model without a chat template is refused: engines would each put something else around the question, llama-server even
without a word. Where the template takes no system role, as Gemma 2's, the system prompt stands before the question. One
that lets the model think first, as Qwen3's, is told not to: the reasoning that is paid stands in the reply's own tags.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from kit.cli.errors import UserError, first_line

Messages = list[dict[str, str]]
UNTHINKING = {"enable_thinking": False}  # for every template; those that do not know the word do as always
_TOLD_NOT_TO_THINK = "{%- set enable_thinking = false -%}"
_SYSTEM, _USER = "\x01system\x01", "\x01user\x01"
_OF_TRANSFORMERS = re.compile(
    r"\{%-?\s*(?:end)?generation\s*-?%\}"
)  # a tag of its own, which only marks what is learned


def keep_default_template(tokenizer: Any) -> None:
    """Of a tokenizer with several templates by name, keep the one that a chat is put into."""
    if isinstance(named := tokenizer.chat_template, dict):
        tokenizer.chat_template = named.get("default") or next(iter(named.values()))


def check_template(shown: str, template: str) -> None:
    """Refuse a model that has no chat template, or one that cannot be rendered.

    Raises:
        UserError: naming ``shown``, with what to take instead.
    """
    if not template:
        raise UserError(
            f"{shown} has no chat template, so nothing says how a question is put to it or where its turn ends: name "
            "its -Instruct version, or put its family's template into chat_template.jinja and export it again"
        )
    try:
        rendered(template, [{"role": "user", "content": _USER}])
    except Exception as error:  # Jinja, and what a template raises itself
        raise UserError(f"{shown}: its chat template cannot be rendered ({first_line(error)})") from None


def told_not_to_think(template: str) -> str:
    """The template that does not let the model think where nobody says so; itself where it never does.

    >>> told_not_to_think("{{ enable_thinking }}")
    '{%- set enable_thinking = false -%}{{ enable_thinking }}'
    """
    thinks = "enable_thinking" in template and not template.startswith(_TOLD_NOT_TO_THINK)
    return _TOLD_NOT_TO_THINK + template if thinks else template


@lru_cache(maxsize=16)
def takes_system_role(template: str) -> bool:
    """Does the system prompt come through, in a turn of its own or however the template puts it?

    >>> takes_system_role("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}")
    True
    >>> takes_system_role("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}")
    False
    """
    talk = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    try:
        return _SYSTEM in rendered(template, talk)
    except Exception:  # what a template raises to say that it takes none
        return False


def fitted(messages: Messages, template: str) -> Messages:
    """The messages as the template takes them: a system prompt that it does not take goes before the question.

    >>> fitted([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "9 + 9?"}], "{{ 1 }}")
    [{'role': 'user', 'content': 'Be brief.\\n\\n9 + 9?'}]
    """
    if not template or messages[0]["role"] != "system" or takes_system_role(template):
        return messages
    system, question, *rest = messages
    return [question | {"content": f"{system['content']}\n\n{question['content']}"}, *rest]


def rendered(template: str, messages: Messages) -> str:
    """The prompt's text, as transformers renders it, which would take seconds to import.

    Raises:
        Exception: Jinja's own kinds, and what a template raises itself.
    """
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": lambda form: form}
    compiled = environment.from_string(_OF_TRANSFORMERS.sub("", template))
    return compiled.render(
        messages=messages, add_generation_prompt=True, bos_token="", eos_token="", tools=None, **UNTHINKING
    )
