"""What the person at the keyboard meets: sentences instead of tracebacks, progress, Ctrl-C, text that is safe to show.

Comes in: what somebody typed, or what went wrong. Goes out: words. It knows nothing of models.
"""
