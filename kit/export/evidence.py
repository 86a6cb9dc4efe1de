"""What an export is tried on: the kind of text that the model is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kit.chat_templates import fitted
from kit.models.tensors import with_tokenizer
from kit.prompts import build_prompt, format_reply
from kit.storage.hub import local_folder
from kit.storage.model_files import template_in
from kit.storage.run_folder import RunFolder, read_jsonl

_MOST = 16
# Asked where a run folder has no samples.jsonl to take questions from.
_FALLBACK = [
    ("Ana has 3 apples and gets 4 more. How many now?", format_reply("3 + 4 = 7", "7")),
    ("A box holds 12 pens. How many pens are in 5 boxes?", format_reply("12 * 5 = 60", "60")),
    ("Tom had 20 euros and spent 8. How much is left?", format_reply("20 - 8 = 12", "12")),
]


def example_question(trained: dict[str, Any]) -> str:
    """What a model can be tried with: the example of its task; of a run from before there were tasks, a sum.

    Args:
        trained: what run.yaml says.
    """
    return trained.get("task", {}).get("example", _FALLBACK[0][0])


@dataclass(frozen=True)
class Evidence:
    """Conversations, each ending with a reply, and all the text that there is in them, over whose beginning the
    divergence of GGUF files is measured."""

    talks: list[list[dict[str, str]]]
    text: str

    @property
    def conversations(self) -> list[list[dict[str, str]]]:
        """Those of which replies and log-probabilities are compared."""
        return self.talks[:_MOST]


def evidence_of(run: RunFolder) -> Evidence:
    """The last reply in samples.jsonl to each of its questions."""
    prompt = run.read()["system_prompt"]
    replies = {line["question"]: line["reply"] for line in read_jsonl(run.samples_file)}
    base = run.merge_base()
    template = template_in(with_tokenizer(run.adapter, base) if run.has_adapter else local_folder(base))
    talks = [
        [*fitted(build_prompt(question, prompt), template), {"role": "assistant", "content": reply}]
        for question, reply in list(replies.items()) or _FALLBACK
    ]
    text = "\n\n".join("\n".join(message["content"] for message in talk[-2:]) for talk in talks)
    return Evidence(talks, text)
