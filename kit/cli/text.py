"""Text for people: what a model or a data set wrote, safe to show, and durations in words."""

from __future__ import annotations

_PICTURES = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)


def visible(text: str) -> str:
    """The text with its control characters made visible.

    >>> visible("a" + chr(27) + "[31mred")
    'a␛[31mred'
    """
    return text.translate(_PICTURES)


def duration(seconds: float) -> str:
    """In words of the right size.

    >>> duration(42), duration(600), duration(5400)
    ('42 s', '10 min', '1 h 30 min')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
