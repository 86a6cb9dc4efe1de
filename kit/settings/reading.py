"""Settings as the user gives them: command line over ``--config`` file over defaults, and the checks that need neither
model nor data.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kit import ranks
from kit.cli.command_line import Parser, at_home
from kit.cli.errors import Problems, UserError
from kit.settings.further_fields import ALIASES, further_field, goes_without_saying
from kit.settings.knobs import BATCH_KNOBS, KNOBS, Settings, shared_out

AUTOMATIC = "chosen for the machine where you leave it open: number type, vLLM or not, and what is marked *"
_NAMES_A_FILE = re.compile(
    r"(?:[A-Za-z]:[\\/][^\n]*|[~.]{0,2}/?[\w.-]+(?:[ ][\w.-]+)?(?:/[\w. -]+)*)\.(?:txt|md)", re.IGNORECASE
)
_PATHS = ("model", "dataset", "output_dir", "mirror", "task", "worked_example")
_OF_ITS_CARD = {*BATCH_KNOBS, "gpu_memory_utilization", "gpus"}


def read_settings(argv: Sequence[str] | None, description: str) -> tuple[Settings, Problems]:
    """Command line over ``--config`` file over defaults, and what is wrong with them.

    A knob with a problem has its default, so that the caller can go on and find the other problems too.

    Raises:
        UserError: the command line itself cannot be understood.
    """
    arguments = dict(vars(_parser(description).parse(argv)))
    config = arguments.pop("config", None)
    problems = Problems()
    if config == "":
        problems.found.append("--config is empty: name a YAML file, or leave it out")
    from_file: dict[str, Any] = {}
    is_record = False
    if config and (said := problems.catch(_read_config, Path(at_home(config)))):
        from_file, is_record = said
    of_its_card = _OF_ITS_CARD  # a run.yaml's card may be another
    if "steps_per_generation" in from_file:  # which is counted in its passes
        of_its_card = _OF_ITS_CARD - set(BATCH_KNOBS)
    settings = Settings()
    further: dict[str, Any] = {}
    for source, values in ((f"--config {config}: ", from_file), ("", arguments)):
        for name, value in values.items():
            if name not in KNOBS:
                further[name] = value
            elif (converted := problems.catch(_convert, name, value, source)) is not None:
                setattr(settings, name, converted)
                if not (source and is_record and name in of_its_card):
                    settings.given |= {name}
    by_epochs = "num_train_epochs" in further and "max_steps" not in settings.given
    for name, value in further.items():
        if not goes_without_saying(name, value):
            converted = problems.catch(
                further_field, name, value, f"--config {config}: ", KNOBS,
                max_steps=None if by_epochs else settings.max_steps,
            )  # fmt: skip
            settings.further |= {} if converted is None else {name: converted}
    problems.catch(_take_epochs, settings)
    problems.catch(_count_cards, settings)
    cards = from_file.get("gpus", 1) if is_record else 0  # of the run that a run.yaml is of
    if cards != settings.gpus and isinstance(cards, int):
        whole = settings.completions_per_card * cards
        settings = problems.catch(shared_out, settings, whole or None) or settings
    if is_record:
        problems.catch(_fit_to_record, settings, from_file)
    problems.catch(_check_groups, settings)
    if settings.report_to != "none" and importlib.util.find_spec(settings.report_to) is None:
        problems.found.append(f"--report-to {settings.report_to} is not installed: pip install {settings.report_to}")
    if settings.screen == 1:
        problems.found.append("--screen 1: one reply is always right or always wrong, give 0 or 2 and more")
    if settings.gpu and not settings.plan:
        problems.found.append(f"--gpu {settings.gpu} names a card to plan for, not one to train on: add --plan")
    if settings.step and not settings.finish:
        problems.found.append(f"--step {settings.step} names a checkpoint to finish with: add --finish")
    return settings, problems


def _parser(description: str) -> Parser:
    parser = Parser(f"{description}\n{AUTOMATIC[0].upper()}{AUTOMATIC[1:]}.", argument_default=argparse.SUPPRESS)
    parser.add_argument("--config", metavar="FILE.yaml", help="settings from a file, such as another run's run.yaml")
    titles = dict.fromkeys(spec.metadata["group"] for spec in KNOBS.values())
    groups = {title: parser.add_argument_group(title) for title in titles}
    for name, spec in KNOBS.items():
        info = spec.metadata
        default = f"default{' *' if info.get('chosen') else ''}: {_shown(spec.default)}"
        options: dict[str, Any] = {"help": f"{info['reason']} ({default})".replace("%", "%%")}
        if spec.type == "bool":
            options["action"] = argparse.BooleanOptionalAction
        else:  # converted in _convert, so that all wrong values are reported together
            choices = [*info.get("choices", []), *(["N"] if "number" in info else [])]
            options["metavar"] = "|".join(choices) if choices else str(spec.type).upper()
        groups[info["group"]].add_argument(_option(name), *([info["alias"]] if "alias" in info else []), **options)
    return parser


def _shown(default: Any) -> str:
    return (
        {True: "on", False: "off"}[default] if isinstance(default, bool) else "none" if default == "" else str(default)
    )


def _read_config(path: Path) -> tuple[dict[str, Any], bool]:
    """What a YAML file says, and whether it is a run.yaml, whose knobs stand under ``settings``."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise UserError(f"--config {path} cannot be read ({error.strerror}): name an existing YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("settings", {}), dict):
        raise UserError(f"--config {path} must hold lines of the form NAME: VALUE, as a run.yaml does")
    said = content.get("settings", content)
    problems = [
        f"--config {path} says {name} and {ALIASES[name]}, which mean the same: keep one"
        for name in ALIASES
        if name in said and ALIASES[name] in said
    ]
    if problems:
        raise UserError(*problems)
    said = {ALIASES.get(name, name): value for name, value in said.items()}
    if "num_train_epochs" in said and said.get("max_steps") == -1:  # TRL's way to say that the epochs decide
        del said["max_steps"]
    return said, "settings" in content


def _take_epochs(settings: Settings) -> None:
    """Passes over the questions decide the steps where nothing else does, as with TRL."""
    epochs = settings.further.pop("num_train_epochs", None)
    if epochs is None:
        return
    if epochs <= 0:
        raise UserError(f"num_train_epochs is {epochs:g}: it must be greater than 0")
    if "max_steps" in settings.given:
        print(f"num_train_epochs {epochs:g} counts for nothing beside --max-steps {settings.max_steps}")
    else:
        settings.epochs = epochs


def _convert(name: str, value: Any, source: str) -> Any:
    """The value of a knob in its type and within its bounds."""
    spec = KNOBS[name]
    info, shown = spec.metadata, f"{source}{_option(name)} is {value}"
    if spec.type == "bool":
        if not isinstance(value, bool):
            raise UserError(f"{shown}: write true or false")
        return value
    if spec.type == "str":
        if "of_bool" in info and isinstance(value, bool):
            value = info["of_bool"][value]
        if "number" in info and isinstance(value, int | bool):
            value = "off" if value is False else str(value)  # YAML reads a bare off as false
        if isinstance(value, list) and value and (name == "rewards" or len(value) == 1):
            value = ",".join(map(str, value))
        if not isinstance(value, str) or not (value or spec.default == ""):
            such = f"a text such as {spec.default}" if spec.default else 'a text, "" for none, or leave the line out'
            raise UserError(f"{shown}: give {such}")
        if "number" in info and value.isdecimal() and int(value) > 0:
            return str(int(value))
        if "choices" in info and value not in info["choices"]:
            number = ", or give a whole number from 1" if "number" in info else ""
            raise UserError(f"{shown}: choose from {', '.join(info['choices'])}{number}")
        if name in _PATHS:
            return at_home(value)
        return _content_of(value) if "or_file" in info else value
    try:
        number = {"int": int, "float": float}[str(spec.type)](str(value))
    except ValueError:
        kind = "whole number" if spec.type == "int" else "number"
        raise UserError(f"{shown}, which is no {kind}: give one such as {spec.default}") from None
    least = info.get("least", 1 if spec.type == "int" else None)
    if not math.isfinite(number) or (number <= 0 if least is None else number < least):
        why = " (GRPO compares the completions of a group)" if name == "num_generations" else ""
        raise UserError(f"{shown}: it must be {'greater than 0' if least is None else f'{least} or more'}{why}")
    if number >= info.get("below", math.inf):
        raise UserError(f"{shown}: it must be below {info['below']}")
    return number


def _content_of(text_or_file: str) -> str:
    """The text, or where it names a file, what stands in it."""
    try:
        file = Path(text_or_file).expanduser()
        is_file = file.is_file()
    except (OSError, ValueError, RuntimeError):  # too long for a name, or nobody's home
        is_file = False
    if not is_file:
        if _NAMES_A_FILE.fullmatch(text_or_file):
            at_home(text_or_file)  # which says what a path of Windows is called here
            raise UserError(
                f"--system-prompt {text_or_file} is no file: name one that is there, or write the text itself"
            )
        return text_or_file
    try:
        return file.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--system-prompt {text_or_file} cannot be read as UTF-8 text ({error})") from None


def _count_cards(settings: Settings) -> None:
    """As many as there are processes; another number can be planned for, but not trained on."""
    if settings.plan and ranks.count() == 1:
        return
    if "gpus" in settings.given and settings.gpus != ranks.count():
        raise UserError(
            f"--gpus {settings.gpus} is for --plan: training takes a card for each process, of which there is "
            f"{ranks.count()}: accelerate launch --multi_gpu --num_processes {settings.gpus} train_lora.py starts them"
        )
    settings.gpus = ranks.count()


def _fit_to_record(settings: Settings, recorded: dict[str, Any]) -> None:
    """A step of the run that a run.yaml is of stays one where one of the two that make it up is given."""
    given = settings.given & set(BATCH_KNOBS)
    parts = [*map(recorded.get, BATCH_KNOBS), recorded.get("gpus", 1)]
    if len(given) != 1 or not all(isinstance(part, int) for part in parts):
        return
    (name,), (other,) = given, set(BATCH_KNOBS) - given
    whole = math.prod(parts)
    rest, left = divmod(whole, getattr(settings, name) * settings.gpus)
    if left:
        raise UserError(
            f"{_short_option(name)} {getattr(settings, name)} does not divide the {whole} completions of a step "
            f"in that run.yaml: give one that does, or {_short_option(other)} too"
        )
    setattr(settings, other, rest)
    settings.given |= {other}


def _check_groups(settings: Settings) -> None:
    if "steps_per_generation" in settings.further and "per_device_train_batch_size" not in settings.given:
        raise UserError(
            "steps_per_generation counts passes, and how many completions go through in one the plan chooses for the "
            "card: say per_device_train_batch_size too, or generation_batch_size, the completions of a batch, instead"
        )
    if not set(BATCH_KNOBS) <= settings.given:
        return  # the plan makes the product fit
    if settings.completions_per_step % settings.num_generations == 0:
        return
    fitting = max(1, round(settings.completions_per_step / settings.num_generations)) * settings.num_generations
    cards = f" on {settings.gpus} cards" if settings.gpus > 1 else ""
    raise UserError(
        f"--batch-size {settings.per_device_train_batch_size} times --gradient-accumulation-steps "
        f"{settings.gradient_accumulation_steps}{cards} is {settings.completions_per_step} completions a step, which "
        f"groups of --num-generations {settings.num_generations} do not divide: make the product {fitting}"
    )


def _short_option(name: str) -> str:
    return str(KNOBS[name].metadata.get("alias", _option(name)))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
