"""The kit. Its scripts say so where they are run by a Python that has none of its packages."""

import sys
from importlib.util import find_spec

_INSTALLS = "-m"  # ``python -m kit.install``, which needs none: what a module run so is called while this is imported

if sys.platform == "win32":
    print("error: Windows itself is not supported: use WSL2 (docs/installing.md)", file=sys.stderr)
    sys.exit(2)
if sys.argv[0] != _INSTALLS and find_spec("safetensors") is None:
    print(
        "error: this Python has none of the kit's packages: write .venv/bin/python for python, after make setup; or "
        "install those for your card (docs/installing.md)",
        file=sys.stderr,
    )
    sys.exit(2)
