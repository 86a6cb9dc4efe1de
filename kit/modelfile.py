"""The Ollama Modelfile, derived from what training used: its system prompt, its chat template, its end of turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kit.disk import write_whole
from kit.runs import RunFolder

_SYSTEM, _USER, _REPLY, _NEXT = "\x01system\x01", "\x01user\x01", "\x01reply\x01", "\x01next\x01"


def modelfile(gguf: str, tokenizer: Any, system_prompt: str, context: int) -> str:
    """The text of a Modelfile that answers as evaluation does: same prompt, temperature 0.

    Args:
        gguf: the GGUF's file name, beside the Modelfile.
        tokenizer: the merged folder's, whose chat template is followed.
        system_prompt: of the training run.
        context: tokens of prompt and completion together, ``num_ctx``.
    """
    template = ollama_template(tokenizer)
    lines = [
        f"# ollama create NAME -f Modelfile && ollama run NAME\nFROM ./{gguf}",
        f'TEMPLATE """{template}"""' if template else "# Ollama reads the chat template from the GGUF file itself.",
        f'SYSTEM """{system_prompt}"""',
        f'PARAMETER stop "{tokenizer.eos_token}"',
        "PARAMETER temperature 0",
        f"PARAMETER num_ctx {context}",
    ]
    return "\n".join(lines) + "\n"


def write_modelfile(run: RunFolder, kind: str) -> Path:
    """Write gguf/Modelfile for the GGUF of one kind, with prompt and lengths from run.yaml."""
    from transformers import AutoTokenizer

    trained = run.read()
    context = trained["settings"]["max_prompt_length"] + trained["settings"]["max_completion_length"]
    tokenizer = AutoTokenizer.from_pretrained(str(run.merged))
    file = run.gguf / "Modelfile"
    write_whole(file, modelfile(run.gguf_file(kind).name, tokenizer, trained["system_prompt"], context))
    return file


def gguf_of(run: RunFolder) -> str | None:
    """The name of the GGUF file that the run folder's Modelfile is for."""
    try:
        lines = (run.gguf / "Modelfile").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    return next((line.removeprefix("FROM ./") for line in lines if line.startswith("FROM ./")), None)


def ollama_template(tokenizer: Any) -> str | None:
    """The chat template in Ollama's Go notation, found by rendering a conversation of marks and cutting at the marks.

    ``None`` where a turn does not end with the end-of-turn token before the user's header begins, as in ChatML it does.
    """
    rendered = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": _SYSTEM},
            {"role": "user", "content": _USER},
            {"role": "assistant", "content": _REPLY},
            {"role": "user", "content": _NEXT},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    try:
        before_system, rest = rendered.split(_SYSTEM)
        before_user, rest = rest.split(_USER)
        before_reply, rest = rest.split(_REPLY)
        before_next, last = rest.split(_NEXT)
    except ValueError:
        return None
    after_end = before_user.removeprefix(tokenizer.eos_token)
    user = after_end.lstrip()
    end = before_user.removesuffix(user)
    if not before_user.startswith(tokenizer.eos_token) or before_next != before_user or last != before_reply:
        return None
    return (
        f"{{{{ if .System }}}}{before_system}{{{{ .System }}}}{end}{{{{ end }}}}"
        f"{user}{{{{ .Prompt }}}}{before_reply}{{{{ .Response }}}}{end}"
    )
