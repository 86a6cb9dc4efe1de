r"""LaTeX as a person would write it in plain text: ``\frac{36}{2}`` becomes 36/2, ``9{,}500`` becomes 9,500.

Only notation is rewritten; nothing is reckoned. What says nothing of a value (fonts, spaces, brackets) goes, what is
not understood leaves a mark, so that no number inside it or beside it is taken alone. Each character is looked at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for a value that is not understood, such as \sqrt{16}
SYMBOL = "\N{CURRENCY SIGN}"  # stands for a name that is not understood, such as \theta
THIN = "\N{NARROW NO-BREAK SPACE}"
EDGE = "\N{WORD JOINER}"  # on both sides of a fraction, so that 3\\frac{1}{2}4 does not become 31/24

_FRACTIONS = {"frac", "dfrac", "tfrac", "cfrac", "nicefrac", "sfrac"}
_WRAPPERS = {
    "text", "textbf", "textit", "textrm", "textsf", "texttt", "textnormal", "mathrm", "mathbf", "mathit", "mathsf",
    "mathtt", "mathbb", "boldsymbol", "bm", "mbox", "hbox", "emph", "underline", "boxed", "fbox", "operatorname",
    "textup", "textsc",
}  # fmt: skip
_DROPPED = {"begin", "end", "tag", "label", "hspace", "vspace", "phantom", "color"}  # with what is in their braces
_OF_ONE = _WRAPPERS | {"tag", "label", "hspace", "vspace", "phantom", "color"}  # one pair of braces; others take two
_SAYS_NOTHING = {
    "left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "displaystyle", "textstyle", "limits", "quad",
    "qquad", "space", "par", "newline", "hfill", "checkmark", "square", "blacksquare", "Box", "qed", "therefore",
    "implies", "to", "rightarrow", "Rightarrow", "Longrightarrow", "iff", "because", "item", "bf", "rm", "it",
    "small", "large", "Large", "LARGE", "huge", "Huge",
}  # fmt: skip
_SIGNS = {
    "times": "×", "cdot": "·", "ast": "*", "div": "÷", "pm": "±", "mp": "±", "le": "≤", "leq": "≤", "leqslant": "≤",
    "ge": "≥", "geq": "≥", "geqslant": "≥", "lt": "<", "gt": ">", "ne": "≠", "neq": "≠", "approx": "≈", "sim": "≈",
    "circ": "°", "degree": "°", "pi": "π", "infty": "∞", "sqrt": "√", "dots": "...", "ldots": "...", "cdots": "...",
    "pounds": "£", "euro": "€", "textdollar": "$", "minus": "-", "colon": ":", "thinspace": THIN,
}  # fmt: skip
_SHORT = {"!": "", "(": " ", ")": " ", "[": " ", "]": " ", "{": " ", "}": " ", "\\": "\n"} | dict.fromkeys(
    ",;: >", THIN
)

_TOKEN = re.compile(r"\\[A-Za-z]++\*?|\\.|[{}]|[^\\{}]++|\\", re.DOTALL)
_OPTIONAL = re.compile(r"\s*+\[[^\]]*+\]")
_UNIT = re.compile(r"[A-Za-z]{2,}|[hs]")  # of \frac{km}{h}
_WHOLE = re.compile(r"(-?)([0-9][0-9,]*+)")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*+\{|\\[\\{}]|[{}]")
_DEEPEST = 8  # braces in braces; what lies deeper is not understood


def plain(text: str) -> str:
    r"""``text`` without LaTeX. A fraction stands between two ``EDGE``, which nobody sees.

    >>> [plain(text).replace(EDGE, "") for text in (r"\$9{,}500", r"\dfrac{36}{2}", r"18\text{ cm}^{2}", r"5 \times 2")]
    ['$9,500', '36/2', '18 cm^2', '5 × 2']
    >>> plain(r"\sqrt{16}") == plain(r"\frac{x}{2}") == UNKNOWN
    True
    """
    if "\\" not in text and "{" not in text:
        return text
    return _Rewriter().rewrite(text).replace("^°", "°")


def boxes(text: str) -> list[str]:
    r"""What stands in each ``\boxed{…}`` that is closed, in order; a box in a box is part of the outer one.

    >>> boxes(r"so \boxed{\frac{1}{2}}, not \boxed{3")
    ['\\frac{1}{2}']
    """
    found, start, depth = [], 0, 0
    for mark in _BOX.finditer(text):
        if mark[0] == "}" and depth:
            depth -= 1
            if not depth:
                found.append(text[start : mark.start()])
        elif mark[0] == "{" and depth:
            depth += 1
        elif mark[0][1:].endswith("{") and len(mark[0]) > 2:
            start, depth = (start, depth + 1) if depth else (mark.end(), 1)
    return found


@dataclass
class _Command:
    """A command that waits for what stands in its braces."""

    name: str
    arguments: list[str] = field(default_factory=list)


class _Rewriter:
    """Goes through the tokens once. ``open`` holds, for each brace that is open, where it began and whose it is."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.open: list[tuple[int, _Command | None]] = []
        self.waiting: _Command | None = None

    def rewrite(self, text: str) -> str:
        for token in _TOKEN.findall(text):
            if token == "{":
                self.open.append((len(self.out), self.waiting))
                self.waiting = None
            elif token == "}":
                self._close()
            elif token[0] == "\\":
                self._settle()
                self._command(token[1:].rstrip("*"))
            else:
                self._text(token)
        self._settle()
        for start, owner in self.open:  # cut off inside: what stands there is a piece of something
            if owner and owner.name not in _WRAPPERS:
                self.out[start:] = [UNKNOWN]
                break
        return "".join(self.out)

    def _command(self, name: str) -> None:
        if name.isdigit():
            self.out.append(UNKNOWN)  # 3\4 is no 34
        elif not name.isalpha():
            self.out.append(_SHORT.get(name, name))
        elif name in _SAYS_NOTHING:
            self.out.append(" ")
        elif name in _SIGNS and name != "sqrt":
            self.out.append(_SIGNS[name])
        else:
            self.waiting = _Command(name)

    def _text(self, token: str) -> None:
        command = self.waiting
        if command and command.name in _FRACTIONS:  # \frac12
            taken = token.replace(" ", "")[: 2 - len(command.arguments)]
            command.arguments += taken
            if len(command.arguments) < 2:
                return
            for character in taken:
                token = token.lstrip().removeprefix(character)
        elif command and (optional := _OPTIONAL.match(token)):  # \sqrt[3]{27}
            token = token[optional.end() :]
        if command and not token.strip():
            return
        self._settle()
        self.out.append(token)

    def _close(self) -> None:
        self._settle()
        if not self.open:
            return
        start, self.waiting = self.open.pop()
        content = "".join(self.out[start:]) if len(self.open) < _DEEPEST else UNKNOWN
        del self.out[start:]
        if self.waiting is None:
            self.out.append(content)
            return
        self.waiting.arguments.append(content)
        if self.waiting.name in _OF_ONE or len(self.waiting.arguments) == 2:
            self._settle()

    def _settle(self) -> None:
        """Write down the command that waits: no more of its arguments follow."""
        command, self.waiting = self.waiting, None
        if command is None:
            return
        if command.name in _DROPPED:
            self.out.append(EDGE if command.name == "tag" else "")  # 1\tag{5}8 is no 18
        elif command.name in _WRAPPERS:
            self.out += command.arguments
        elif command.name == "textcolor":
            self.out += command.arguments[1:]
        elif command.name in _FRACTIONS:
            self.out.append(_fraction(command.arguments))
        else:
            self.out.append(UNKNOWN if command.arguments else _SIGNS.get(command.name, SYMBOL))


def _fraction(arguments: list[str]) -> str:
    if len(arguments) == 2 and all(_UNIT.fullmatch(argument.strip()) for argument in arguments):
        return "/".join(argument.strip() for argument in arguments)
    over, under = (
        [_WHOLE.fullmatch(argument.strip()) for argument in arguments] if len(arguments) == 2 else (None, None)
    )
    if over is None or under is None or under[1]:
        return UNKNOWN
    return f"{over[1]}{EDGE}{over[2]}/{under[2]}{EDGE}"
