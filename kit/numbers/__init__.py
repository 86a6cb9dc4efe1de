"""A text → the numbers in it, as people read them: LaTeX, fractions, units, either decimal mark.

Which of them is the answer is not decided here but in ``kit/grading.py``.
"""
