"""ANSWERS: ask an artefact every question, judge each reply, keep all of it in a transcript that survives a stop.

A transcript is JSON Lines, one reply a line, appended as replies are finished. Each line carries the fingerprint of
what gave the reply, so that the same command goes on where it was stopped, and a changed model never inherits replies.
kit/evaluation/transcripts.py keeps them.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kit.cli.progress import Progress, progress
from kit.evaluation.transcripts import Key, Line, Transcript, transcript_file
from kit.generation.artefacts import Artefact, fingerprint
from kit.generation.engine import Completion, Engine, Sampling
from kit.generation.open import open_engine
from kit.generation.runtime import Room, Runtime, Server, choose_runtime
from kit.generation.server_engine import base_address
from kit.grading import verdicts
from kit.prompts import build_prompt
from kit.task.prompt_length import reckoned_prompt_length
from kit.task.questions import Row
from kit.task.task import DEFAULT

# Of EvaluationSettings; each row of the scores names its engine.
_OF_THE_MACHINE = ("batch_size", "max_prompt_length", "vllm", "dtype", "server")


@dataclass(frozen=True)
class EvaluationSettings:
    """How the questions are put.

    Args:
        system_prompt: what the model is told first.
        max_completion_length: where a reply is cut off, in tokens.
        max_prompt_length: least room for the prompt, where an engine sets room aside beforehand.
        batch_size: prompts in one forward pass. This and the room do not change what is measured.
        base_4bit: run adapters on the 4-bit base that they were trained on.
        samples: replies a question at ``temperature``, beside the greedy one.
        temperature: of the samples.
        seed: of the samples.
        vllm: whether vLLM answers where it can be had: ``auto``, ``off`` or ``require``.
        dtype: that Hugging Face weights are computed in: ``auto``, or a name.
        decimal_mark: that answers and replies are read with.
        task: that says what is right; ``Task.label``.
        server: that answers in place of an engine here.
    """

    system_prompt: str
    max_completion_length: int
    max_prompt_length: int = 512
    batch_size: int = 64
    base_4bit: bool = False
    samples: int = 0
    temperature: float = 1.0
    seed: int = 0
    vllm: str = "auto"
    dtype: str = "auto"
    decimal_mark: str = "point"
    task: str = DEFAULT
    server: Server | None = None

    def runtime_of(self, artefact: Artefact) -> Runtime:
        """What will run an artefact; raises as ``choose_runtime`` does."""
        return choose_runtime(artefact, self.base_4bit, self.vllm, self.dtype, self.server)

    def recorded(self) -> dict[str, Any]:
        """What the scores depend on."""
        return {name: value for name, value in asdict(self).items() if name not in _OF_THE_MACHINE}


@dataclass(frozen=True)
class Answers:
    """All replies of one artefact: the greedy ones in the order of the questions, and the samples.

    ``fingerprint`` is of the model, ``made_by`` of all that the greedy replies depend on; each of their lines has it.
    """

    artefact: Artefact
    runtime: Runtime
    fingerprint: str
    made_by: str
    greedy: list[Line]
    samples: list[Line]


def answer_questions(
    artefact: Artefact, runtime: Runtime, questions: list[Row], settings: EvaluationSettings, folder: Path
) -> Answers:
    """Ask what has not been asked yet. A kill loses at most one batch; the model is only loaded if needed."""
    model = fingerprint(artefact)
    asked = [_Asked(artefact, questions, settings, runtime, model, folder)]
    tasks = [(asked[0], [(index, 0) for index in range(len(questions))])]
    if settings.samples:
        asked.append(_Asked(artefact, questions, settings, runtime, model, folder, settings.temperature))
        for sample in range(settings.samples):
            tasks.append((asked[1], [(index, sample) for index in range(len(questions))]))
    total = sum(len(keys) for _, keys in tasks)
    missing = sum(not part.transcript.has(key) for part, keys in tasks for key in keys)
    if missing < total:
        rest = ", going on with the rest" if missing else ""
        print(f"{artefact.name}: {total - missing} of {total} replies are there already{rest}")
        if runtime.server:
            print("they are of what was served there then: --output-dir elsewhere asks anew")
    if missing:
        prompt = room_for_prompts([row["question"] for row in questions], settings)
        room = Room(prompt, settings.max_completion_length, settings.batch_size)
        with open_engine(artefact, runtime, room) as engine, progress(artefact.name, missing) as bar:
            for part, keys in tasks:
                part.fill(engine, [key for key in keys if not part.transcript.has(key)], bar)
    greedy, *samples = [
        part.transcript.finish([key for other, keys in tasks if other is part for key in keys]) for part in asked
    ]
    made_by = asked[0].transcript.made_by
    return Answers(artefact, runtime, model, made_by, greedy, samples[0] if samples else [])


def room_for_prompts(questions: list[str], settings: EvaluationSettings) -> int:
    """Tokens to set aside for a prompt: as in training, or more where a question is longer than any there could be."""
    reckoned = reckoned_prompt_length(questions, settings.system_prompt)
    return max(settings.max_prompt_length, reckoned)


class _Asked:
    """The questions put in one way, greedy or sampled, and the transcript of it."""

    def __init__(
        self, artefact: Artefact, questions: list[Row], settings: EvaluationSettings, runtime: Runtime, model: str,
        folder: Path, temperature: float = 0.0,
    ) -> None:  # fmt: skip
        self.questions, self.settings, self.temperature = questions, settings, temperature
        decoding = {"temperature": temperature, "seed": settings.seed} if temperature else {}
        asked = [settings.system_prompt, settings.max_completion_length]
        # Behind another address is another model.
        served = [base_address(runtime.server.address)] if runtime.server else []
        made_by = [model, *asked, runtime.engine, runtime.precision, decoding, *served]
        self.transcript = Transcript(
            transcript_file(folder, artefact.name, sampled=bool(temperature)),
            questions,
            hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16],
            verdicts,
        )

    def fill(self, engine: Engine, keys: list[Key], bar: Progress) -> None:
        """Ask what ``keys`` say, all of one sample number, and append each batch as it is finished."""
        prompts = [build_prompt(self.questions[index]["question"], self.settings.system_prompt) for index, _ in keys]
        seed = (self.settings.seed * 1000 + (keys[0][1] if keys else 0)) * 1_000_003 % 2**31
        sampling = Sampling(self.settings.max_completion_length, self.temperature, seed)
        started = time.monotonic()
        for batch in engine.generate(prompts, sampling):
            seconds, started = (time.monotonic() - started) / len(batch), time.monotonic()
            self.transcript.add({keys[place]: self._line(keys[place], reply, seconds) for place, reply in batch})
            bar.advance(len(batch))

    def _line(self, key: Key, completion: Completion, seconds: float) -> Line:
        return {
            **({"sample": key[1]} if self.temperature else {}),
            "reply": completion.text,
            "tokens": completion.tokens,
            "truncated": completion.truncated,
            "seconds": round(seconds, 6),
        }
