"""Countdown with two numbers or more: reach a target with each of them once and + - * /.

The data hold the game: {"question": "Use 9 and 4 to make 13.", "answer": {"numbers": [9, 4], "target": 13}}
"""

import ast
import json
import operator
import re
from fractions import Fraction

SYSTEM_PROMPT = """\
Use each number once, with + - * / and brackets, to make the target. Answer with the calculation alone. Respond in the
following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>"""
EXAMPLE = {
    "question": "Use 3, 8 and 2 to make 22.",
    "reasoning": "3 * 8 = 24 and 24 - 2 = 22.",
    "answer": "3 * 8 - 2",
    "gold": {"numbers": [3, 8, 2], "target": 22},
}
REWARDS = {"correctness": 4, "soft_format": 0.5, "xml_count": 0.25}

_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_CALCULATION = re.compile(r"[0-9+*/() -]{1,200}")


def read_answer(text):
    """A calculation, written in one way; what is none is no answer."""
    text = text.partition("=")[0].strip()  # "9 + 4 = 13" says 9 + 4
    if not _CALCULATION.fullmatch(text):
        return None
    try:
        return ast.unparse(ast.parse(text, mode="eval"))
    except (SyntaxError, MemoryError, RecursionError):
        return None


def is_right(calculation, gold):
    """Does it use the numbers of the game, each once, and reach its target?"""
    game = json.loads(gold)
    used = []
    try:
        reached = _value(ast.parse(calculation, mode="eval").body, used)
    except (ValueError, ZeroDivisionError):
        return False
    return sorted(used) == sorted(game["numbers"]) and reached == game["target"]


def _value(tree, used):
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        used.append(tree.value)
        return Fraction(tree.value)
    if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATIONS:
        return _OPERATIONS[type(tree.op)](_value(tree.left, used), _value(tree.right, used))
    raise ValueError("more than + - * / of whole numbers")
