"""What is asked and what it is worth: data files → questions with checked gold answers; people's reward functions.

The verdict on a reply is ``kit/grading.py``'s, the rewards themselves stand in ``rewards.py``.
"""
