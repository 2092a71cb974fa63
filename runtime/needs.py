"""Importing this says what to run when the project has not been set up. Only the standard library here."""

import importlib.util
import sys

if sys.version_info < (3, 11):
    sys.exit("error: this is Python {}.{}; use 3.11 or newer".format(*sys.version_info[:2]))

_missing = [m for m in ("fastargs", "ffcv", "numba", "torch", "torchvision", "timm") if not importlib.util.find_spec(m)]
if _missing:
    print(
        f"error: {', '.join(_missing)} not installed for {sys.executable}; "
        "run ./setup.sh, then `source .venv/bin/activate`",
        file=sys.stderr,
    )
    sys.exit(2)
