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
from llvmlite import binding
from numba import types

from beton.kernels import library_path


def _cache_folder() -> str:
    """A folder for compiled code: below $XDG_CACHE_HOME or ~/.cache, one for each state of the sources."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(f"{sys.version} {numba.__version__}".encode())
    for source in sorted(package.rglob("*.py")):
        digest.update(source.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(base / "beton" / f"jit-{digest.hexdigest()[:16]}")


_folder = os.environ.get("NUMBA_CACHE_DIR") or _cache_folder()


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


# By symbol and not by ctypes pointer, so that code which calls them can be cached on disk.
binding.load_library_permanently(library_path())

_pointer, _int, _long = types.uintp, types.int32, types.int64
# Arguments: see kernels.cpp. Returns a code: 0, or a key of beton.kernels.CODES.
kernels_crop = types.ExternalFunction(
    "kernels_crop",
    _int(_pointer, _pointer, types.uint64, *[_long] * 3, *[_pointer] * 2, *[_long] * 3, *[_pointer] * 3),
)
