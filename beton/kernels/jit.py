"""The compiler of the JIT stages: numba with a disk cache that notices every change of the sources.

numba's own cache looks only at the file of the function itself, so a change in a function that it
calls would go unnoticed. Here the cache folder's name is a digest of all sources and of the versions;
numba itself adds the CPU to the key of each entry.
"""

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numba


def _cache_folder() -> str:
    """A folder for compiled code: below $XDG_CACHE_HOME or ~/.cache, one for each state of the sources."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(f"{sys.version} {numba.__version__}".encode())
    for source in sorted(package.rglob("*.py")):
        digest.update(source.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(base / "beton" / f"jit-{digest.hexdigest()[:16]}")


_folder = os.environ.get("NUMBA_CACHE_DIR") or _cache_folder()


def folder() -> str:
    """Where compiled code is kept, for this state of the sources."""
    return _folder


def jit(function: Callable) -> Callable:
    """Compile for calls without the GIL: stages run in threads beside training. Kept on disk, if there is a place."""
    # Only for this function: what else the process compiles with numba is not ours
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _folder
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no folder can be written: compiled anew in each process
        return numba.njit(nogil=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = before
