"""The processes of one run: which of them this is, and how they agree.

A launcher (``accelerate launch``, ``torchrun``) starts one process a card, each with the same command. Each holds the
whole model and learns from its share of a step's completions; torch's DDP, which transformers' Trainer wraps around
the policy, averages the gradients. All else that happens once in a run (files, held-out scores, decisions) the first
process does and tells the others, by this module. Where there is one process, it is the first, and nothing here costs
anything.

Values go over gloo, also beside NCCL: they are small, lie in ordinary memory, and gloo notices when a process is gone.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from kit.cli.errors import UserError, first_line
from kit.cli.signals import StopRequest

T = TypeVar("T")

_LONGEST_WAIT = timedelta(hours=6)  # the others wait while the first asks questions, or fetches a model
_GONE = ("connection closed by peer", "connection reset by peer", "timed out waiting", "nccl")
_SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}

_SILENT_S = 30.0  # the longest that a process waits in silence for the one that says why; the launcher ends it sooner
_PATIENCE_S = 4.0

_group: Any = None  # gloo's, of all processes; None where there is one
_agreed_on: list[Exception] = []  # that this process is the one to raise
_work: Callable[[Any], Any] | None = None
_TASK, _END = "task", "end"


def count() -> int:
    """How many processes make the run (torch's world size), as a launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def on_this_machine() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if count() > 1 else 1


def is_first() -> bool:
    """Is this the process that writes, shows and decides?"""
    return rank() == 0


class OtherRankFailed(UserError):
    """Raised in the first process, with what another one failed of."""


def join() -> None:
    """Meet the other processes; must come before anything that looks at the hardware. Only the first is heard then.

    Raises:
        UserError: the launcher splits the model, which the kit's engines do not, or starts fewer than it was told to.
    """
    global _group
    _check_launcher()
    if count() == 1:
        _see_one_card()
    if count() == 1 or _group is not None:
        return
    import torch

    if not is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (as long as the process)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        torch.distributed.init_process_group("nccl", timeout=_LONGEST_WAIT)
    else:
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"  # it would number processors, which torch cannot load to
        torch.distributed.init_process_group("gloo", timeout=_LONGEST_WAIT)
    _group = torch.distributed.new_group(backend="gloo", timeout=_LONGEST_WAIT)


def _see_one_card() -> None:
    """One process takes one card, the first that it sees: transformers would make batches larger, and spread them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]


def leave() -> None:
    """Part from the others at the end of a run that went well."""
    global _group
    if _group is not None:
        import torch

        wait()
        torch.distributed.destroy_process_group()
        _group = None


def refuse_launcher(script: str) -> None:
    """Refuse to be one of several processes.

    Raises:
        UserError: this is the first of several; the others end without a word.
    """
    if count() > 1:
        refuse(
            f"{script} is for one process, and a launcher started {count()}: run python {script} without it; what many "
            "cards answer faster is asked of a server (evaluate.py --server)"
        )


def refuse(problem: str) -> NoReturn:
    """Refuse what all processes find wrong: the first says it, the others end without a word.

    Raises:
        UserError: in the first.
    """
    if is_first():
        raise UserError(problem)
    _end_quietly(UserError.exit_status)


def gathered(value: T) -> list[T]:
    """The values of all processes, by rank."""
    if _group is None:
        return [value]
    import torch

    values: list[Any] = [None] * count()
    torch.distributed.all_gather_object(values, value, group=_group)
    return values


def told(value: T) -> T:
    """The first process's value."""
    if _group is None:
        return value
    import torch

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0, group=_group)
    return box[0]


def wait() -> None:
    """Go on when all have come here."""
    gathered(None)


def by_first(do: Callable[[], T]) -> T:
    """What the first process gets by ``do``, told to all; meanwhile the others help, where ``do`` calls ``shared``.

    Raises:
        Exception: what ``do`` raised, in the first process; the others end.
    """
    if _group is None:
        return do()
    if is_first():
        result, error = _tried(do)
        told((_END, result, None if error is None else _as_told(error)))
        if error is not None:
            _agreed_on.append(error)
            raise error
        return result  # type: ignore[return-value]
    message: Any = told(None)
    while message[0] == _TASK:
        gathered(_outcome_of(message[1]))
        message = told(None)
    if message[2]:
        _end_quietly(*message[2][1:])
    return message[1]  # type: ignore[no-any-return]


def help_with(work: Callable[[Any], Any]) -> None:
    """``work`` is what ``shared`` does from now on, in each process."""
    global _work
    _work = work


def shared(task: Any) -> list[Any]:
    """What each process gets by ``help_with``'s work at the same task; called by the first, within ``by_first``.

    Raises:
        UserError: it failed in one of them.
    """
    told((_TASK, task))
    outcomes = gathered(_outcome_of(task))
    for number, (_, problem) in enumerate(outcomes):
        if problem:
            raise UserError(f"process {number} of {count()}: {problem}")
    return [result for result, _ in outcomes]


def _outcome_of(task: Any) -> tuple[Any, str]:
    assert _work is not None
    result, error = _tried(lambda: _work(task))
    return result, "" if error is None else first_line(error)


def _tried(do: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return do(), None
    except Exception as error:
        return None, error


def together(do: Callable[[], T]) -> T:
    """``do()`` in each process; where it fails in one, all end: the first with the sentence, the others silently.

    Raises:
        OtherRankFailed: in the first process, with what another says is wrong.
        Exception: what ``do`` raised, in the process where it did, unless the first can say it.
    """
    if _group is None:
        return do()
    result, error = _tried(do)
    failures = gathered(None if error is None else _as_told(error))
    failed = next((number for number, failure in enumerate(failures) if failure is not None), None)
    if failed is None:
        return result  # type: ignore[return-value]
    problems, status, is_foreseen = failures[failed]  # type: ignore[misc]
    if error is not None and (failed == 0 == rank() or (failed == rank() and not is_foreseen)):
        _agreed_on.append(error)
        raise error
    if is_first() and is_foreseen:
        raise OtherRankFailed(*(f"process {failed} of {count()}: {problem}" for problem in problems))
    return _end_quietly(status)


def _end_quietly(status: int) -> NoReturn:
    """After the process that has something to say: the launcher ends the others as soon as one is gone."""
    time.sleep(_SILENT_S)
    sys.exit(status)


@contextmanager
def heard_once() -> Iterator[None]:
    """What all processes raise alike, the first alone says: the launcher ends the others while they wait a moment."""
    try:
        yield
    except Exception as error:
        if not is_first() and not any(known in (error, error.__cause__) for known in _agreed_on):
            time.sleep(_PATIENCE_S)
        raise


def agree_on(stop: StopRequest) -> bool:
    """Is it time to stop? Whoever was asked to, all were; a signal that comes meanwhile counts the next time.

    Where processes must go the same way, ask this and not ``stop.signal``, which may have come to one of them alone.
    """
    agreed = next((number for number in gathered(stop.signal) if number is not None), None)
    if agreed is not None:
        stop.signal = agreed
    return agreed is not None


def is_of_lost_process(error: Exception) -> bool:
    """Does this error of torch's mean that another process is gone?"""
    said = str(error).lower()
    return _group is not None and isinstance(error, RuntimeError) and any(words in said for words in _GONE)


def _as_told(error: Exception) -> tuple[tuple[str, ...], int, bool]:
    if isinstance(error, UserError):
        return error.problems, error.exit_status, True
    return (first_line(error),), 1, False


def _check_launcher() -> None:
    for variable, name in _SHARDED.items():
        if os.environ.get(variable, "").lower() in ("1", "true"):
            refuse(
                f"accelerate is configured for {name}, which splits a model that does not fit a card; 4-bit weights in "
                "Unsloth and vLLM are whole on each: launch with --multi_gpu and without it"
            )
    wanted = _asked_of_accelerate()
    if count() == 1 and wanted > 1:
        raise UserError(
            f"accelerate launch --cpu --num_processes {wanted} starts one process on one machine: use "
            f"torchrun --nproc_per_node {wanted} train_lora.py …"
        )


def _asked_of_accelerate() -> int:
    """The processes that ``accelerate launch --cpu``, if that started this one, was told to start."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true"):
        return 1
    import psutil

    try:
        words = [word for part in psutil.Process().parent().cmdline() for word in part.split("=", 1)]
        place = next((place for place, word in enumerate(words) if word.replace("-", "_") == "__num_processes"), None)
        return 1 if place is None else int(words[place + 1])
    except (psutil.Error, AttributeError, ValueError, IndexError):
        return 1
