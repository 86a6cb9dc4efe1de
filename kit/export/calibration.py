"""An importance matrix from what the run itself asked and was told, so that few bits go where its answers need them."""

from __future__ import annotations

from pathlib import Path

from kit.cli.errors import UserError
from kit.export.evidence import Evidence
from kit.export.weights import load_tokenizer
from kit.llama_cpp.imatrix import make_imatrix
from kit.storage.run_folder import RunFolder, read_jsonl

# Qwen2.5-Coder-0.5B after 62 steps: iq3_xxs is 0.168 nats a token from f16 with a matrix of 32 questions (7,000 tokens,
# three minutes of a core), 0.175 with one of 8, so more would hardly tell. The divergence is measured on others.
QUESTIONS = 32
FEWEST_QUESTIONS = 2 * QUESTIONS


def check_calibration(run: RunFolder) -> None:
    """Refuse an importance matrix for a run that has too few questions to make one from.

    Raises:
        UserError: with how many there are.
    """
    asked = len({line["question"] for line in read_jsonl(run.samples_file)})
    if asked < FEWEST_QUESTIONS:
        remedy = "choose types that need none, such as q4_k_m or q3_k_m"
        raise UserError(
            f"--imatrix is made from the training questions and the model's own replies, and {run.samples_file} holds "
            f"{asked or 'none'} ({FEWEST_QUESTIONS} are needed): {'train longer, or ' if asked else ''}{remedy}"
        )


def calibrate(evidence: Evidence, merged: Path, f16: Path, scratch: Path) -> Path:
    """The importance matrix of the model ``f16``, on the last 32 of its training questions.

    Each stands as the model meets it: system prompt, chat template, and its own last reply. Its own, not the gold one:
    the matrix tells which inputs the weights meet while the model writes, and gold answers are in another's words. The
    divergence is measured on the first thousand tokens of all questions, so on others than these.

    Raises:
        UserError: llama-imatrix failed, or all of them together are too short for it.
    """
    talks = evidence.talks[-QUESTIONS:]
    tokenizer = load_tokenizer(merged)
    text = "".join(tokenizer.apply_chat_template(talk, tokenize=False) for talk in talks)
    return make_imatrix(f16, text, f"{len(talks)} training questions with replies", scratch)
