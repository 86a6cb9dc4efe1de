"""The file of a task, one of the folder ``tasks/`` or a user's own, is read and checked.

YAML holds ``answer``, ``system_prompt``, ``tags``, ``example`` and ``rewards``; Python the same in capitals, and may
judge with functions of its own, ``is_right`` and ``read_answer``.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kit.answers.choice import Choice, choice_key
from kit.answers.json_value import Json
from kit.answers.kind import AnswerKind
from kit.answers.number import Number
from kit.answers.own import Own
from kit.answers.text import Text
from kit.cli.errors import UserError, first_line
from kit.prompts import Form, format_reply
from kit.settings.knobs import KNOBS
from kit.task.reward_source import whole_source_hash
from kit.task.user_code import run_file
from kit.task.worked_example import WorkedExample

FOLDER = Path(__file__).resolve().parents[2] / "tasks"
OF_THE_KIT = {"choice", "countdown", "gsm8k", "person"}  # others may lie beside them, and are their users'
_FIELDS = ("answer", "system_prompt", "tags", "example", "rewards")
_FUNCTIONS = ("is_right", "read_answer")
_KINDS: dict[str, AnswerKind] = {"number": Number(), "text": Text(), "json": Json()}


class _Float(float):
    """A number that knows how it was written."""

    def __new__(cls, written: str) -> _Float:
        number = super().__new__(cls, written)
        number.written = written
        return number

    written: str


class _AsWritten(yaml.SafeLoader):
    """YAML, in which 12:30 is no 750, 0612 no 394, a day no date, and yes a word, as YAML 1.1 would have it."""


_AsWritten.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge", "value")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _type, _pattern, _first in (
    ("bool", "true|false|True|False", "tfTF"),
    ("int", "-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("float", r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", "-.0123456789"),
):
    _AsWritten.add_implicit_resolver(f"tag:yaml.org,2002:{_type}", re.compile(f"(?:{_pattern})$"), list(_first))
_AsWritten.add_constructor("tag:yaml.org,2002:float", lambda _, node: _Float(str(node.value)))


@dataclass(frozen=True)
class Task:
    """A task, as its file says it.

    Args:
        name: that it is called by: of the file, without folder and ending.
        file: where it stands.
        form: tags and system prompt.
        answers: how answers are read and judged.
        example: a question with a reply that is in format.
        gold: the right answer of the example; empty where the file does not say it.
        rewards: as ``--rewards`` would name them.
        source: a hash of what the file says.
    """

    name: str
    file: Path
    form: Form
    answers: AnswerKind
    example: WorkedExample
    gold: str
    rewards: str
    source: str

    @property
    def label(self) -> str:
        """What tells it from other tasks; of one of the kit's own, its name."""
        return self.name if self.is_the_kits_own else f"{self.name} {self.source}"

    @property
    def is_the_kits_own(self) -> bool:
        return self.file.resolve().parent == FOLDER and self.name in OF_THE_KIT


def read_task(name: str) -> Task:
    """The task of ``tasks/NAME.yaml`` or ``tasks/NAME.py``, or of a file.

    Raises:
        UserError: with all that is wrong with it.
    """
    file = _file_of(name)
    said, functions, source = _read_python(file) if file.suffix == ".py" else (*_read_yaml(file), "")
    problems = [
        f"--task {file} says {field}, which no task has: take it out, or write one of {', '.join(_FIELDS)}"
        for field in said
        if field not in _FIELDS
    ]
    parts: dict[str, Any] = {}
    readers: dict[str, Callable[[], Any]] = {
        "form": lambda: _form(said),
        "answers": lambda: _answers(said, functions, file, source),
        "example": lambda: _example(said),
        "rewards": lambda: _rewards(said, functions, file),
    }
    for part, reader in readers.items():
        try:
            parts[part] = reader()
        except UserError as error:
            problems += error.problems
        except ValueError as error:
            problems.append(f"--task {file}: {error}")
    if problems:
        raise UserError(*problems)
    source = source or hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]
    form, example = parts["form"], parts.pop("example")
    shown = WorkedExample(example["question"], format_reply(example["reasoning"], example["answer"], form))
    return Task(file.stem, file, example=shown, gold=example["gold"], source=source, **parts)


def _file_of(name: str) -> Path:
    if name.endswith((".yaml", ".yml", ".py")):
        if not Path(name).is_file():
            raise UserError(f"--task {name} does not exist: name a YAML or Python file")
        return Path(name)
    known = {path.stem: path for path in sorted(FOLDER.glob("[!_]*.*")) if path.suffix in (".yaml", ".py")}
    if name not in known:
        raise UserError(f"--task: there is no {name!r}, choose from {', '.join(known)}, or name a FILE.yaml or FILE.py")
    return known[name]


def _read_yaml(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        said = yaml.load(file.read_text(encoding="utf-8-sig"), _AsWritten)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--task {file} cannot be read ({' '.join(str(error).split())[:200]}): mend it") from None
    if not isinstance(said, dict) or not all(isinstance(name, str) for name in said):
        raise UserError(f"--task {file} must hold lines of the form NAME: VALUE, such as answer: number")
    return said, {}


def _read_python(file: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    try:
        module, source = run_file(file), whole_source_hash(file)
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--task {file} cannot be run ({type(error).__name__}: {first_line(error)}): mend it"
        ) from error
    said = {field: getattr(module, field.upper()) for field in _FIELDS if hasattr(module, field.upper())}
    functions = {name: value for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    return said, functions, source


def _form(said: dict[str, Any]) -> Form:
    names = said.get("tags") or {}
    if not isinstance(names, dict) or not set(names) <= {"reasoning", "answer"}:
        raise ValueError("tags must name two, such as {reasoning: think, answer: answer}")
    reasoning, answer = (str(names.get(name, name)).strip("<>/ ") for name in ("reasoning", "answer"))
    if reasoning == answer or not all(name.replace("_", "").replace("-", "").isalnum() for name in (reasoning, answer)):
        raise ValueError(f"tags must be two different words, not {reasoning!r} and {answer!r}")
    text = said.get("system_prompt") or ""
    if not isinstance(text, str):
        raise ValueError("system_prompt must be a text")
    form = Form(reasoning, answer, text.strip())
    if missing := [tag for tag in form.tags if tag not in form.system_prompt]:
        raise ValueError(
            f"system_prompt does not show {' '.join(missing)}, so that no model would write them: add\n"
            f"{format_reply('...', '...', form)}"
        )
    return form


def _answers(said: dict[str, Any], functions: dict[str, Any], file: Path, source: str) -> AnswerKind:
    wanted = said.get("answer")
    if "is_right" in functions:
        if wanted is not None:
            raise ValueError("it says both answer and is_right: keep one")
        _check_takes(functions["is_right"], "is_right(answer, gold)")
        if "read_answer" in functions:
            _check_takes(functions["read_answer"], "read_answer(block)")
        return Own(functions["is_right"], functions.get("read_answer"), source, str(file))
    if "read_answer" in functions:
        raise ValueError("read_answer without is_right: define is_right(answer, gold) too")
    if isinstance(wanted, str) and wanted in _KINDS:
        return _KINDS[wanted]
    if isinstance(wanted, (list, tuple)):
        choices = tuple(_choice(item) for item in wanted)
        keys = {choice_key(choice) for choice in choices}
        if len(keys) == len(choices) > 1 and all(keys):
            return Choice(choices)
        raise ValueError("answer must name at least two choices that differ in letters or digits, such as [A, B, C, D]")
    own = ", or define is_right(answer, gold) in a Python file"
    raise ValueError(f"answer must be number, text, json, or a list of choices{own}; it is {wanted!r}")


def _check_takes(function: Callable[..., Any], wanted: str) -> None:
    try:
        parameters = inspect.signature(function)
    except ValueError:  # some that are written in C, such as int, do not say
        return
    try:
        parameters.bind(*wanted.split(","))
    except TypeError as error:
        raise ValueError(f"{function.__name__} is called as {wanted}: {error}") from None


def _choice(item: Any) -> str:
    """As YAML or Python wrote it."""
    if isinstance(item, _Float):
        return item.written
    return str(item).lower() if isinstance(item, bool) else str(item).strip()


def _example(said: dict[str, Any]) -> dict[str, str]:
    example = said.get("example")
    needed = ("question", "reasoning", "answer")
    if not isinstance(example, dict) or not all(str(example.get(name, "")).strip() for name in needed):
        raise ValueError("example must hold question, reasoning and answer: it is shown before questions, to a model "
                         "that does not know the form yet")  # fmt: skip
    if further := set(example) - {*needed, "gold"}:
        raise ValueError(f"example holds {', '.join(map(str, further))}: take it out")
    texts = {name: _as_text(example[name]) for name in needed}
    return texts | {"gold": _as_text(example.get("gold", ""))}


def _as_text(value: Any) -> str:
    """A text as it is, and a number as it was written; anything else as JSON."""
    if isinstance(value, _Float):
        return value.written
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _rewards(said: dict[str, Any], functions: dict[str, Any], file: Path) -> str:
    wanted = said.get("rewards", KNOBS["rewards"].default)
    if isinstance(wanted, str):
        return wanted
    if not isinstance(wanted, dict) or not wanted:
        raise ValueError("rewards must be a recipe, such as sums, or functions with weights, such as {correctness: 4}")
    if {",", ":"} & set(str(file)) and any(name in functions for name in wanted):
        raise ValueError("rewards of its own cannot be named with a comma or a colon in the file's path: move it")
    own = {name: f"{file}:{name}" for name in functions if name not in _FUNCTIONS}
    return ",".join(f"{own.get(name, name)}:{weight}" for name, weight in wanted.items())
