"""The Ollama Modelfile, derived from what training used: its system prompt, its chat template, its end of turn."""

from __future__ import annotations

import datetime
import re
import unicodedata
from pathlib import Path
from typing import Any

from kit.chat_templates import UNTHINKING, fitted
from kit.llama_cpp.gguf import GgufFile
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder

_SYSTEM, _USER, _REPLY, _NEXT = "\x01system\x01", "\x01user\x01", "\x01reply\x01", "\x01next\x01"
_TALK = [("system", _SYSTEM), ("user", _USER), ("assistant", _REPLY), ("user", _NEXT)]
_LONGEST_NAME = 80  # of what Ollama takes
OLLAMAS_CONTEXT = 4096  # its own default where memory is scarce
_THE_DAY = datetime.datetime(2024, 7, 26)  # which Llama's templates name where they are given no clock
_FILE_LINE = re.compile(r"(?:FROM|ADAPTER) \./(.+)")
# What Ollama adds to every request by itself, switched off; a temperature of 0 alone leaves its repeat penalty.
_NEUTRAL = ("repeat_penalty 1", "top_k 0", "top_p 1", "min_p 0")
_NO_TEMPLATE = """\
# The chat template could not be put into Ollama's notation. An Ollama that runs llama.cpp's llama-server, as its source
# of August 2026 does, reads it from the GGUF file. An older one knows a list of templates, and for all others sends the
# bare question, without roles and system prompt: update it, or write TEMPLATE here.\
"""

_NO_SYSTEM = """\
# The system prompt holds three quotation marks in a row, which end a text in this file: whoever asks has to give it, as
# /set system in ollama run, or as the message of the role system.\
"""

_ON_A_BASE = """\
# The adapter stands on a GGUF of its base, here in f16, with which it was checked. Another type of the same base may
# take its place, such as the q4_k_m that others run on: name it after FROM.\
"""


def ollama_name(name: str) -> str:
    """A name that ``ollama create`` takes, from any: small letters without accents, digits, ``.``, ``-`` and ``_``.

    >>> ollama_name("mi modelo (año 2)")
    'mi-modelo-ano-2'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9._-]+", "-", plain).replace("-.", ".").strip("-._")[:_LONGEST_NAME] or "model"


def modelfile(
    gguf: str, tokenizer: Any, system_prompt: str, context: int, adds_bos: bool = True, adapter: str = ""
) -> str:
    """The text of a Modelfile that answers as evaluation does: same prompt, the likeliest token each time.

    Args:
        gguf: the GGUF's file name, beside the Modelfile.
        tokenizer: the merged folder's, whose chat template is followed.
        system_prompt: of the training run.
        context: how many tokens of a conversation are seen, ``num_ctx``.
        adds_bos: whether Ollama puts the beginning-of-text token before the prompt by itself.
        adapter: the file name of an adapter's GGUF, where ``gguf`` is one of its base.
    """
    template = ollama_template(tokenizer, adds_bos)
    name = ollama_name((adapter or gguf).removesuffix(".gguf"))
    lines = [
        f"# ollama create {name} -f Modelfile{'.adapter' if adapter else ''} && ollama run {name}",
        *([_ON_A_BASE] if adapter else []),
        f"FROM ./{gguf}",
        *([f"ADAPTER ./{adapter}"] if adapter else []),
        f'TEMPLATE """{template}"""' if template else _NO_TEMPLATE,
        _NO_SYSTEM if '"""' in system_prompt else f'SYSTEM """{system_prompt}"""',
        f'PARAMETER stop "{tokenizer.eos_token}"',
        *(f"PARAMETER {setting}" for setting in _NEUTRAL),
        "PARAMETER temperature 0",
        f"PARAMETER num_ctx {context}",
    ]
    if template and _prints_the_day(tokenizer):
        lines.insert(
            lines.index(f"FROM ./{gguf}") + 1,
            f"# The chat template prints the day it is; here that is {_THE_DAY:%d %B %Y}, on every day.",
        )
    return "\n".join(lines) + "\n"


def write_modelfile(run: RunFolder, kind: str) -> Path:
    """Write gguf/Modelfile for the GGUF of one kind, with prompt and lengths from run.yaml."""
    write_whole(run.modelfile, _modelfile_for(run, run.gguf_file(kind)))
    return run.modelfile


def write_adapter_modelfile(run: RunFolder, base: Path) -> Path:
    """Write gguf/Modelfile.adapter for the adapter's GGUF on ``base``, a GGUF of its base below gguf/."""
    write_whole(run.adapter_modelfile, _modelfile_for(run, base, run.adapter_gguf.name))
    return run.adapter_modelfile


def _modelfile_for(run: RunFolder, gguf: Path, adapter: str = "") -> str:
    from transformers import AutoTokenizer

    trained = run.read()
    length = trained["settings"]["max_prompt_length"] + trained["settings"]["max_completion_length"]
    context = max(length, OLLAMAS_CONTEXT)  # who chats asks more than once
    tokenizer = AutoTokenizer.from_pretrained(str(run.merged))
    adds_bos = GgufFile(gguf).value("tokenizer.ggml.add_bos_token") is not False  # Ollama's default is to add it
    name = gguf.relative_to(run.gguf).as_posix()
    return modelfile(name, tokenizer, trained["system_prompt"], context, adds_bos, adapter)


def gguf_of(run: RunFolder) -> str | None:
    """The name of the GGUF file that the run folder's Modelfile is for."""
    return next(iter(_named_in(run.modelfile)), None)


def remove_those_of_nothing(run: RunFolder) -> None:
    """Remove the Modelfiles of GGUF files that are gone, as those of earlier weights are after an export."""
    for modelfile_ in (run.modelfile, run.adapter_modelfile):
        if any(not (run.gguf / name).exists() for name in _named_in(modelfile_)):
            modelfile_.unlink()


def _named_in(modelfile: Path) -> list[str]:
    """The files that a Modelfile stands on; none where there is no Modelfile."""
    try:
        lines = modelfile.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [found[1] for line in lines if (found := _FILE_LINE.match(line))]


def ollama_template(tokenizer: Any, adds_bos: bool = True) -> str | None:
    """The chat template in Ollama's Go notation, found by rendering a conversation of marks and cutting at the marks.

    Without the beginning-of-text token where Ollama adds one by itself: two of them make another prompt. ``None`` where
    the system prompt comes after a question, or no turn can be seen to end.
    """
    rendered, bos = _rendered(tokenizer), getattr(tokenizer, "bos_token", None) or ""
    begin = bos if rendered.startswith(bos) and not adds_bos else ""
    try:
        before_system, rest = rendered.removeprefix(bos).split(_SYSTEM)
        after_system, rest = rest.split(_USER)
        before_old_reply, rest = rest.split(_REPLY)
        after_reply, before_reply = rest.split(_NEXT)
    except ValueError:
        return None
    in_users_turn = bool(before_system) and after_reply.endswith(before_system)  # as in Gemma's
    user = before_system if in_users_turn else after_reply.removeprefix(tokenizer.eos_token).lstrip()
    end = after_reply.removesuffix(user)
    # Before the reply that the model writes, a template may say more than before an old one, such as <think>.
    if not (user and end.strip() and before_reply.startswith(before_old_reply)):
        return None
    if in_users_turn:
        head = f"{{{{ if .System }}}}{begin}{user}{{{{ .System }}}}{after_system}{{{{ else }}}}{user}{{{{ end }}}}"
    elif end.startswith(tokenizer.eos_token) and after_system.endswith(user):
        system = f"{begin}{before_system}{{{{ .System }}}}{after_system.removesuffix(user)}"
        head = f"{{{{ if .System }}}}{system}{{{{ end }}}}{user}"
    else:
        return None
    return f"{head}{{{{ .Prompt }}}}{before_reply}{{{{ .Response }}}}{end}"


def _rendered(tokenizer: Any) -> str:
    messages = fitted([{"role": role, "content": content} for role, content in _TALK], tokenizer.chat_template)
    clock = {"strftime_now": _THE_DAY.strftime} if _prints_the_day(tokenizer) else {}
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **clock, **UNTHINKING)


def _prints_the_day(tokenizer: Any) -> bool:
    return "strftime_now" in str(getattr(tokenizer, "chat_template", ""))
