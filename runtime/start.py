"""Imported first by every script, before torch: checks the set-up and tells OpenMP to wait asleep.

Only the standard library here.
"""

import importlib.util
import os
import sys
from pathlib import Path

# torch's threads wait for each other by spinning. Where the loader's threads, or another program, want
# the same cores, each wait then lasts a time slice: 7 s instead of 0.25 s for a step of ResNet-18
# (two cores shared with one busy process). Asleep they cost nothing when the cores are free either.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_NEEDED = ("fastargs", "ffcv", "numba", "torch", "torchvision", "timm")
_missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
if not any((Path(__file__).parent.parent / "pipelines" / "kernels").glob("_kernels.*")):
    _missing.append("the compiled kernels")
if _missing:
    print(
        f"error: {', '.join(_missing)} not installed for {sys.executable}; "
        "run ./setup.sh, then `source .venv/bin/activate`",
        file=sys.stderr,
    )
    sys.exit(2)

# As pipelines/jit.py has it. numba would only say that it finds no locator
_cache = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ffcv-toolkit"
)
try:
    os.makedirs(_cache, exist_ok=True)
    _writable = os.access(_cache, os.W_OK)
except OSError:
    _writable = False
if not _writable:
    print(f"error: cannot write {_cache}, where compiled code is kept; set XDG_CACHE_HOME to a folder", file=sys.stderr)
    sys.exit(2)
