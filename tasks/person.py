"""A sentence about a person becomes JSON of a given shape.

The data hold the object:
{"question": "Ana is 34 and lives in Rome.", "answer": {"name": "Ana", "age": 34, "city": "Rome"}}
"""

import json

from kit.prompts import parse_reply

SCHEMA = {"name": str, "age": int, "city": str}

SYSTEM_PROMPT = """\
Write down what the sentence says of the person, as JSON with "name", "age" and "city". Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
{"name": "...", "age": 0, "city": "..."}
</answer>"""
ANSWER = "json"  # right where it is the same value, however it is spaced and ordered
EXAMPLE = {
    "question": "Olga, who has just turned 51, moved to Lima.",
    "reasoning": "The name is Olga, the age 51, the city Lima.",
    "answer": {"name": "Olga", "age": 51, "city": "Lima"},
}
REWARDS = {"correctness": 3, "fields": 1, "shape": 0.5, "soft_format": 0.5}


def fields(completions, answer, **_):
    """The share of the fields that are right."""
    return [
        sum(name in said and said[name] == right for name, right in json.loads(gold).items()) / len(SCHEMA)
        for said, gold in zip(map(_object, completions), answer, strict=True)
    ]


def shape(completions, **_):
    """1 where the answer has the fields that it is to have and no others, each of its type."""
    return [
        float(said.keys() == SCHEMA.keys() and all(type(said[name]) is kind for name, kind in SCHEMA.items()))
        for said in map(_object, completions)
    ]


def _object(completion):
    """The object between the answer tags, also in a fence of Markdown; empty where there is none."""
    text = completion if isinstance(completion, str) else completion[-1]["content"]
    block = parse_reply(text).answer or ""
    if block.startswith("```") and block.endswith("```"):
        block = block[3:-3].removeprefix("json")
    try:
        said = json.loads(block)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
