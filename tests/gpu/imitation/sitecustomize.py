"""Python imports a module of this name before anything else: put the imitated card in place where it is asked for.

In force for every process that has this folder on ``PYTHONPATH`` and ``IMITATED_CAPABILITY`` set, vLLM's own and the
scripts' children among them. See ``run.py``.
"""

import importlib.abc
import importlib.util
import os
import sys


class _AfterUnsloth(importlib.abc.MetaPathFinder):
    """Replaces Unsloth's kernels as soon as Unsloth has been imported."""

    def find_spec(self, name, *_):
        if name != "unsloth":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_replace(module):
            execute(module)
            import imitated_kernels

            imitated_kernels.replace()

        spec.loader.exec_module = execute_and_replace
        return spec


if os.environ.get("IMITATED_CAPABILITY"):
    import imitated_card

    major, minor = map(int, os.environ["IMITATED_CAPABILITY"].split("."))
    imitated_card.put_in(major, minor)
    sys.meta_path.insert(0, _AfterUnsloth())
