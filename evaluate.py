#!/usr/bin/env python3
"""Score models on held-out questions: base, adapter, merged and GGUF, same questions, same prompt, same grader.

    python evaluate.py runs/NAME                          all that a run folder holds, on GSM8K's test questions
    python evaluate.py runs/NAME/adapter --limit 200      one artefact, the first 200 questions
    python evaluate.py runs/NAME/gguf/NAME.q8_0.gguf --ask "Ana has 3 apples and gets 4 more. How many now?"

One greedy answer per question. A row says how many answers are right by the strict XML reading (the one that the
rewards use), by the last number anywhere, and how many replies are in format. Writes scores.json and
transcripts/<row>.jsonl into the run folder, or into --output-dir.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from kit.artefacts import Artefact, find_artefacts
from kit.command_line import Parser, positive_int
from kit.completions import Completion, Engine, open_engine
from kit.errors import Problems, UserError, run_script
from kit.grading import flexible_answer, gold_answer, is_correct, strict_answer
from kit.progress import progress
from kit.prompts import SYSTEM_PROMPT, build_prompt, parse_reply
from kit.questions import Row, fingerprint, load_questions
from kit.runs import RunFolder, append_jsonl, run_folder_of

DEFAULT_MAX_COMPLETION_LENGTH = 512
MAX_PROMPT_LENGTH = 512
Transcript = dict[str, object]


def main() -> None:
    args = read_arguments()
    plan = make_plan(args)
    if args.ask:
        ask_one(find_artefacts(args.paths), args.ask, plan)
        return
    artefacts, questions, output = check_everything(args)
    rows = []
    for artefact in artefacts:
        transcript = output / "transcripts" / f"{artefact.name}.jsonl"
        with open_engine(
            artefact, plan.max_completion_length, MAX_PROMPT_LENGTH, plan.batch_size, plan.base_4bit
        ) as engine:
            judged = answer_all(engine, artefact, questions, plan, transcript)
        rows.append(score_row(artefact, engine, judged))
    write_scores(output, rows, plan, questions, args.dataset)
    print_table(rows)
    print(f"{output / 'scores.json'}, {output / 'transcripts'}/")


@dataclass(frozen=True)
class Plan:
    """How the questions are put: the prompt, where a reply is cut off (in tokens), the batch, the adapter's base."""

    system_prompt: str
    max_completion_length: int
    batch_size: int
    base_4bit: bool


def read_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="run folder, model folder, adapter folder, .gguf file, or Hub id"
    )
    parser.add_argument(
        "--dataset", default="openai/gsm8k", help="Hub id or JSONL file of the questions (default: %(default)s)"
    )
    parser.add_argument("--split", default="test", help="which split of a Hub data set (default: %(default)s)")
    parser.add_argument("--question-column", default="question", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--answer-column", default="answer", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--limit", type=positive_int, metavar="N", help="only the first N questions")
    parser.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N", help="prompts in a batch (default: %(default)s)"
    )
    parser.add_argument("--max-completion-length", type=positive_int, metavar="N",
                        help=f"tokens (default: as in training, else {DEFAULT_MAX_COMPLETION_LENGTH})")  # fmt: skip
    parser.add_argument("--base-4bit", action="store_true", help="run adapters on the 4-bit base, as they were trained")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="where scores.json and transcripts/ go")
    parser.add_argument("--ask", metavar="QUESTION", help="put one question to one artefact and print the reply")
    return parser.parse()


def check_everything(args: argparse.Namespace) -> tuple[list[Artefact], list[Row], Path]:
    """What answers, what is asked, and where the results go.

    Raises:
        UserError: with all that is wrong, before anything is loaded or written.
    """
    problems = Problems()
    artefacts = problems.catch(find_artefacts, args.paths)
    columns = (args.question_column, args.answer_column)
    questions = problems.catch(load_questions, args.dataset, args.split, *columns, limit=args.limit)
    output = problems.catch(output_folder, args)
    problems.raise_any()
    (output / "transcripts").mkdir(parents=True, exist_ok=True)
    return artefacts, questions, output


def run_folder(args: argparse.Namespace) -> RunFolder | None:
    """The run folder that the paths belong to, if any does."""
    return next((run for path in args.paths if (run := run_folder_of(Path(path)))), None)


def make_plan(args: argparse.Namespace) -> Plan:
    """The training prompt and lengths where a run folder says them, else the kit's own."""
    run = run_folder(args)
    trained = run.read() if run else {"settings": {}}
    length = args.max_completion_length or trained["settings"].get(
        "max_completion_length", DEFAULT_MAX_COMPLETION_LENGTH
    )
    return Plan(trained.get("system_prompt", SYSTEM_PROMPT), length, args.batch_size, args.base_4bit)


def output_folder(args: argparse.Namespace) -> Path:
    """Where the results go: --output-dir, else the run folder of the first path that has one."""
    run = run_folder(args)
    output = args.output_dir or (run.path if run else None)
    if output is None:
        raise UserError(f"{args.paths[0]} lies in no run folder: say where the scores go with --output-dir DIR")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output-dir {output} is a file: name a folder")
    return output


def ask_one(artefacts: list[Artefact], question: str, plan: Plan) -> None:
    """Put one question to one artefact and print its reply."""
    if len(artefacts) != 1:
        raise UserError(
            f"--ask wants one artefact, not {len(artefacts)}: name one of {', '.join(a.path for a in artefacts)}"
        )
    with open_engine(artefacts[0], plan.max_completion_length, MAX_PROMPT_LENGTH, 1, plan.base_4bit) as engine:
        (reply,) = engine.generate([build_prompt(question, plan.system_prompt)])
    print(reply.text)


def answer_all(
    engine: Engine, artefact: Artefact, questions: list[Row], plan: Plan, transcript: Path
) -> list[Transcript]:
    """Ask everything, in batches of similar length, and write the transcript in the order of the questions."""
    order = sorted(range(len(questions)), key=lambda index: len(questions[index]["question"]))
    judged: dict[int, Transcript] = {}
    with progress(artefact.name, len(questions)) as bar:
        for start in range(0, len(order), engine.batch_size):
            batch = order[start : start + engine.batch_size]
            prompts = [build_prompt(questions[index]["question"], plan.system_prompt) for index in batch]
            for index, completion in zip(batch, engine.generate(prompts), strict=True):
                judged[index] = judge(index, questions[index], completion)
            bar.advance(len(batch))
    in_order = [judged[index] for index in range(len(questions))]
    transcript.unlink(missing_ok=True)
    append_jsonl(transcript, *in_order)
    return in_order


def judge(index: int, row: Row, completion: Completion) -> Transcript:
    """One line of the transcript: the reply and the verdicts on it."""
    gold = gold_answer(row["answer"])
    return {
        "index": index,
        "question": row["question"],
        "gold": str(gold),
        "reply": completion.text,
        "strict": is_correct(strict_answer(completion.text), gold),
        "flexible": is_correct(flexible_answer(completion.text), gold),
        "in_format": parse_reply(completion.text).soft,
        "tokens": completion.tokens,
        "truncated": completion.truncated,
    }


def score_row(artefact: Artefact, engine: Engine, judged: list[Transcript]) -> dict[str, object]:
    """A row of the table and of scores.json."""

    def share(verdict: str) -> float:
        return sum(bool(line[verdict]) for line in judged) / len(judged)

    return {
        "name": artefact.name,
        "path": artefact.path,
        "precision": engine.precision,
        "questions": len(judged),
        "strict": {"accuracy": share("strict")},
        "flexible": {"accuracy": share("flexible")},
        "format_rate": share("in_format"),
    }


def write_scores(output: Path, rows: list[dict], plan: Plan, questions: list[Row], dataset: str) -> None:
    """Write scores.json. Rows of other artefacts stay where they were made with the same questions and settings."""
    scores = {"dataset": dataset, "fingerprint": fingerprint(questions), "settings": asdict(plan), "rows": rows}
    file = output / "scores.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        if all(before.get(key) == scores[key] for key in ("fingerprint", "settings")):
            new = {row["name"]: row for row in rows}
            old = {row["name"]: row for row in before["rows"]}
            scores["rows"] = list((old | new).values())
    file.write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def print_table(rows: list[dict]) -> None:
    """The score table, one row an artefact."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{rows[0]['questions']} questions, one greedy answer each")
    table.add_column("")
    for title in ("strict", "flexible", "in format"):
        table.add_column(title, justify="right")
    table.add_column("computed in")
    for row in rows:
        rates = (row["strict"]["accuracy"], row["flexible"]["accuracy"], row["format_rate"])
        table.add_row(row["name"], *(f"{rate:.1%}" for rate in rates), row["precision"])
    Console().print(table)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_script(main)
