"""A run: TRL's trainer put together, the rehearsal on a card, what is written down and shown while it goes on.

Comes in: a plan, questions, rewards. Goes out: an adapter in a run folder. When to save is the checkpointing wing's.
"""
