"""The text in an answer block → what it says, and whether that is right: a number, a text, a choice, JSON, or as a
task's own functions have it.

Where in a reply the answer stands is decided in ``kit/grading.py``.
"""
