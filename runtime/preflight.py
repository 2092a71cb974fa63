"""Is this environment set up? Every script calls `check` before it imports anything else.

Only the standard library is imported here.
"""

import importlib.util
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent


def check(*modules: str) -> None:
    """Exit with status 2 and one line on stderr unless `modules`, the kernels and a cache folder are there.

    Also makes OpenMP wait passively, which takes effect only before torch is imported.
    """
    # torch's threads wait for each other by spinning. When the loader's threads or another program need the same
    # cores, each wait then lasts a time slice: 7 s instead of 0.25 s for a step of ResNet-18 (two cores shared with
    # one busy process). Passive waiting costs nothing when the cores are free.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What the scripts' own parameters and every dataset need
    needed = dict.fromkeys(("fastargs", "yaml", "terminaltables", "psutil", "numba", "torch", *modules))
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if not any((_ROOT / "beton" / "kernels").glob("_kernels.*")):
        missing.append("the compiled kernels")
    if missing:
        to_do = "run ./setup.sh, then `source .venv/bin/activate`"
        _exit(f"{', '.join(missing)} not installed for {sys.executable}; {to_do}")
    # The same folder as in beton/kernels/jit.py; numba's own message is only that it found no locator
    cache = os.environ.get("NUMBA_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ffcv-toolkit"
    )
    try:
        os.makedirs(cache, exist_ok=True)
        writable = os.access(cache, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        _exit(f"cannot write {cache}, the folder for compiled code; set XDG_CACHE_HOME to a writable folder")


def _exit(error: str) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
