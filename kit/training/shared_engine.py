"""The policy's engines in all processes of a run, as one: what the first asks, each answers its share of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from kit import ranks
from kit.generation.engine import Conversation, Engine, Finished, Sampling
from kit.training.policy_engine import answering
from kit.training.random_states import same_random_numbers

_SEEDS_APART = 1_000_003  # of two processes, more than there are places
_PARTS_IN_FLIGHT = 8  # of what a process answers at once; after so many, progress is shown


class SharedEngine:
    """Asks all processes, of which each answers ``at_once`` prompts together; within ``ranks.by_first``."""

    def __init__(self, at_once: int) -> None:
        self._part = _PARTS_IN_FLIGHT * at_once * ranks.count()

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[Finished]:
        for start in range(0, len(conversations), self._part):
            part = list(conversations[start:][: self._part])
            shares = ranks.shared((part, sampling))
            yield [(start + place, completion) for share in shares for place, completion in share]


def engine_of_all(engine: Callable[[], Engine], policy: Any, at_once: int) -> Callable[[], Engine]:
    """``engine``, or with several processes one of them all.

    Args:
        engine: gives one that answers as this process's policy does then.
        policy: the model.
        at_once: how many prompts that answers together.
    """
    if ranks.count() == 1:
        return engine

    def answer_share(task: tuple[list[Conversation], Sampling]) -> Finished:
        prompts, sampling = task
        places = range(ranks.rank(), len(prompts), ranks.count())
        # An engine draws by the place in what it is asked: without this, all processes would draw the same.
        sampling = replace(sampling, seed=sampling.seed + ranks.rank() * _SEEDS_APART)
        with same_random_numbers(), answering(policy):
            finished = engine().generate([prompts[place] for place in places], sampling)
            return [(places[number], completion) for batch in finished for number, completion in batch]

    ranks.help_with(answer_share)
    return lambda: SharedEngine(at_once)
