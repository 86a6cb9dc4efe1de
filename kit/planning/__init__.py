"""Does it fit, with which settings, and how long will it take? Said before anything is loaded.

Comes in: settings, a machine, a model's shape. Goes out: a ``Plan`` with its reasons. No weights are loaded.
"""
