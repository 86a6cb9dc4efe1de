"""A command line and a ``--config`` file → one ``Settings``, every knob once, with its default and its reason.

It looks at nothing outside: whether a run with these settings fits a machine is the planning wing's.
"""
