"""A reward that differs between replies of a model that writes noise."""


def letters(completions, **columns):
    """The share of characters that are plain letters."""
    texts = [completion[-1]["content"] for completion in completions]
    return [sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text)) for text in texts]
