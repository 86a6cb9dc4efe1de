"""ANSWERS: ask an artefact every question, judge each reply, keep all of it in a transcript that survives a stop.

A transcript is JSON Lines, one reply a line, appended as replies are finished. Each line carries the fingerprint of
what gave the reply, so that the same command goes on where it was stopped, and a changed model never inherits replies.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kit.artefacts import Artefact, fingerprint
from kit.completions import Backend, Completion, Engine, choose_backend, open_engine
from kit.disk import write_whole
from kit.grading import flexible_answer, gold_answer, is_correct, strict_answer
from kit.progress import Progress, progress
from kit.prompts import build_prompt, parse_reply
from kit.questions import Row
from kit.runs import append_jsonl, read_jsonl

Line = dict[str, Any]
_OF_THE_MACHINE = ("batch_size", "max_prompt_length", "vllm")  # of Plan; each row of the scores names its engine
Key = tuple[int, int]  # (index of the question, number of the sample; 0 for the greedy reply)


@dataclass(frozen=True)
class Plan:
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
        vllm: whether vLLM answers where there is a card: ``auto``, ``off`` or ``require``.
        decimal_mark: that answers and replies are read with.
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
    decimal_mark: str = "point"

    def settings(self) -> dict[str, Any]:
        """What the scores depend on."""
        return {name: value for name, value in asdict(self).items() if name not in _OF_THE_MACHINE}


@dataclass(frozen=True)
class Answers:
    """All replies of one artefact: the greedy ones in the order of the questions, and the samples.

    ``fingerprint`` is of the model, ``made_by`` of all that the greedy replies depend on; each of their lines has it.
    """

    artefact: Artefact
    backend: Backend
    fingerprint: str
    made_by: str
    greedy: list[Line]
    samples: list[Line]


def transcript_file(folder: Path, name: str, sampled: bool = False) -> Path:
    """``transcripts/NAME.jsonl``, or ``transcripts/NAME.samples.jsonl``."""
    return folder / "transcripts" / f"{name}{'.samples' if sampled else ''}.jsonl"


def collect(artefact: Artefact, questions: list[Row], plan: Plan, folder: Path) -> Answers:
    """Ask what has not been asked yet. A kill loses at most one batch; the model is only loaded if needed."""
    backend = choose_backend(artefact, plan.base_4bit, plan.vllm)
    model = fingerprint(artefact)
    greedy = _Transcript(transcript_file(folder, artefact.name), questions, plan, backend, model, temperature=0.0)
    tasks = [(greedy, [(index, 0) for index in range(len(questions))])]
    if plan.samples:
        file = transcript_file(folder, artefact.name, sampled=True)
        sampled = _Transcript(file, questions, plan, backend, model, plan.temperature)
        tasks += [(sampled, [(index, sample) for index in range(len(questions))]) for sample in range(plan.samples)]
    total = sum(len(keys) for _, keys in tasks)
    missing = sum(not transcript.has(key) for transcript, keys in tasks for key in keys)
    if missing < total:
        rest = ", going on with the rest" if missing else ""
        print(f"{artefact.name}: {total - missing} of {total} replies are there already{rest}")
    if missing:
        size = (plan.max_completion_length, room_for_prompts(questions, plan), plan.batch_size)
        with open_engine(artefact, backend, *size) as engine, progress(artefact.name, missing) as bar:
            for transcript, keys in tasks:
                transcript.fill(engine, [key for key in keys if not transcript.has(key)], bar)
    wanted = [key for transcript, keys in tasks[1:] for key in keys]
    return Answers(
        artefact,
        backend,
        model,
        greedy.fingerprint,
        greedy.finish(tasks[0][1]),
        sampled.finish(wanted) if wanted else [],
    )


def room_for_prompts(questions: list[Row], plan: Plan) -> int:
    """Tokens to set aside for a prompt: as in training, or more where a question is longer than any there could be.

    Reckoned at three bytes a token, since engines want to know it before there is a tokenizer: English has four.
    """
    longest = max(len((plan.system_prompt + row["question"]).encode()) for row in questions)
    return max(plan.max_prompt_length, longest // 3)


class _Transcript:
    """One transcript file: what of it can be used again, and what is added."""

    def __init__(
        self, file: Path, questions: list[Row], plan: Plan, backend: Backend, model: str, temperature: float
    ) -> None:
        self.file, self.questions, self.plan, self.temperature = file, questions, plan, temperature
        decoding = {"temperature": temperature, "seed": plan.seed} if temperature else {}
        made_by = [model, plan.system_prompt, plan.max_completion_length, backend.engine, backend.precision, decoding]
        self.fingerprint = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16]
        self.lines: dict[Key, Line] = {}
        for line in read_jsonl(file):
            if line.get("made_by") == self.fingerprint and _asks(line, questions):
                self.lines[line["index"], line.get("sample", 0)] = line | judge(line["reply"], line["gold"])
        if self.lines or file.exists():
            self._rewrite(self.lines.values())

    def has(self, key: Key) -> bool:
        return key in self.lines

    def fill(self, engine: Engine, keys: list[Key], bar: Progress) -> None:
        """Ask what ``keys`` say, all of one sample number, and append each batch as it is finished."""
        prompts = [build_prompt(self.questions[index]["question"], self.plan.system_prompt) for index, _ in keys]
        seed = (self.plan.seed * 1000 + (keys[0][1] if keys else 0)) * 1_000_003 % 2**31
        started = time.monotonic()
        for batch in engine.generate(prompts, self.temperature, seed):
            seconds, started = (time.monotonic() - started) / len(batch), time.monotonic()
            fresh = {keys[position]: self._judge(keys[position], reply, seconds) for position, reply in batch}
            append_jsonl(self.file, *fresh.values())
            self.lines |= fresh
            bar.advance(len(batch))

    def finish(self, keys: list[Key]) -> list[Line]:
        """The lines in the order of ``keys``, and the file rewritten to hold just them."""
        in_order = [self.lines[key] for key in keys]
        self._rewrite(in_order)
        return in_order

    def _rewrite(self, lines: Iterable[Line]) -> None:
        write_whole(self.file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def _judge(self, key: Key, completion: Completion, seconds: float) -> Line:
        index, sample = key
        row = self.questions[index]
        gold = gold_answer(row["answer"])
        return {
            "index": index,
            **({"sample": sample} if self.temperature else {}),
            "question": row["question"],
            "gold": str(gold),
            "reply": completion.text,
            **judge(completion.text, str(gold)),
            "tokens": completion.tokens,
            "truncated": completion.truncated,
            "seconds": round(seconds, 6),
            "made_by": self.fingerprint,
        }


def judge(reply: str, gold: str) -> dict[str, bool]:
    """The verdicts on a reply: right by the strict XML reading, right by the last number, and in format."""
    right = gold_answer(gold)
    return {
        "strict": is_correct(strict_answer(reply), right),
        "flexible": is_correct(flexible_answer(reply), right),
        "in_format": parse_reply(reply).soft,
    }


def _asks(line: Line, questions: list[Row]) -> bool:
    index = line["index"]
    if not 0 <= index < len(questions):
        return False
    row = questions[index]
    return (line["question"], line["gold"]) == (row["question"], str(gold_answer(row["answer"])))
