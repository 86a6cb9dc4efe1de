"""The same command goes on: checkpoints that are whole, when they are saved, what continues them, a copy elsewhere.

Comes in: a run folder and a trainer. Goes out: where to start. It trains nothing.
"""
