"""--screen: questions that the base gets always right or always wrong are left out, since their groups have no spread.

Each is answered a few times, and which of them are kept stands in the run folder, so that it is asked once: a run that
goes on, or begins anew, trains on the same questions.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, TypedDict

from kit import ranks
from kit.cli.errors import UserError
from kit.cli.progress import progress
from kit.cli.signals import StopRequest
from kit.generation.engine import Engine
from kit.grading import verdicts
from kit.planning.step_size import check_enough, questions_asked
from kit.settings.knobs import Settings
from kit.storage.atomic import write_whole
from kit.storage.run_folder import RunFolder, append_jsonl, read_jsonl
from kit.task.questions import Row
from kit.training.own_replies import drawn
from kit.training.random_states import same_random_numbers

_PART = 16  # questions that are asked together, and written down together


class Screened(TypedDict):
    """A line of screen.jsonl."""

    place: int  # of the question among those that are trained on
    question: str
    right: int  # of ``of`` replies, by the flexible reading
    of: int


def screened(
    dataset: Any, questions: list[Row], engine: Callable[[], Engine], template: str, settings: Settings, run: RunFolder,
    stop: StopRequest,
) -> Any:  # fmt: skip
    """The rows of TRL's ``dataset`` that are trained on; all of them without ``--screen``, or if it was stopped.

    Args:
        dataset: with ``row``, which of the questions each row asks.
        questions: those.
        engine: gives one that answers as the base does.
        template: the chat template.
        settings: of the run.
        run: its folder, where ``screen.jsonl`` and ``screen.json`` are kept.
        stop: asked whether somebody wants to stop.

    Raises:
        UserError: too few are answered now right, now wrong.
    """
    if not settings.screen:
        return dataset

    def screen() -> None:
        if not run.screen_file.exists():
            rows = [questions[row] for row in dataset["row"]]
            with same_random_numbers():
                _screen(rows, engine(), template, settings, run, stop)

    ranks.by_first(screen)
    if ranks.agree_on(stop):
        return dataset
    facts = json.loads(run.screen_file.read_text(encoding="utf-8"))
    kept = facts["kept"]
    try:
        check_enough(len(kept), settings)
    except UserError as error:
        raise UserError(
            f"{error}. --screen {settings.screen}: of {facts['tried']} questions the base is always right in "
            f"{facts['always']} and never in {facts['never']}; --overwrite with other questions, a larger --screen, a "
            "higher --temperature, or without --screen"
        ) from None
    return dataset.select(kept)


def _screen(
    questions: list[Row], engine: Engine, template: str, settings: Settings, run: RunFolder, stop: StopRequest
) -> None:
    """Try questions until the run has enough of those that are worth it; each is asked once in a run then."""
    wanted = questions_asked(settings)
    order = random.Random(settings.seed).sample(range(len(questions)), len(questions))
    lines: list[Any] = read_jsonl(run.screen_answers)
    with progress("screening", len(questions), len(lines)) as bar:
        while len(lines) < len(order) and len(_kept(lines)) < wanted:
            if stop.signal is not None:
                return
            places = order[len(lines) : len(lines) + _PART]
            tried = _tried(places, questions, engine, template, settings)
            append_jsonl(run.screen_answers, *tried)
            lines += tried
            bar.advance(len(tried), note=f"{len(_kept(lines))} of {wanted} found")
    always, never = (sum(line["right"] == (line["of"] if sure else 0) for line in lines) for sure in (True, False))
    kept = sorted(_kept(lines))
    print(
        f"screened: of {len(lines)} questions {always} were right in all {settings.screen} replies, {never} in none; "
        f"{len(kept)} are trained on"
    )
    facts = {"tried": len(lines), "always": always, "never": never, "kept": kept}
    write_whole(run.screen_file, json.dumps(facts) + "\n")


def _kept(lines: list[Screened]) -> list[int]:
    return [line["place"] for line in lines if 0 < line["right"] < line["of"]]


def _tried(
    places: list[int], questions: list[Row], engine: Engine, template: str, settings: Settings
) -> list[Screened]:
    each = [place for place in places for _ in range(settings.screen)]
    seed = settings.seed + places[0]
    replies = drawn(engine, [questions[place] for place in each], settings, template, seed)
    right = dict.fromkeys(places, 0)
    for place, reply in zip(each, replies, strict=True):
        right[place] += verdicts(reply.text, str(questions[place]["answer"]))["flexible"]
    return [
        {"place": place, "question": questions[place]["question"], "right": right[place], "of": settings.screen}
        for place in places
    ]
