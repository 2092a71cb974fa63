"""The compiler of the JIT stages: numba with a disk cache that notices every change of the sources.

numba's own cache looks only at the file of the function itself, so a change in a function that it
calls would go unnoticed. Here the cache folder's name is a digest of all sources and of the versions;
numba itself adds the CPU to the key of each entry.
"""

import hashlib
import os
import sys
from pathlib import Path

import numba
from llvmlite import binding
from numba import types

from pipelines.kernels import library_path


def _cache_folder() -> Path:
    """A folder for compiled code: below $XDG_CACHE_HOME or ~/.cache, one for each state of the sources."""
    digest = hashlib.sha256(f"{sys.version} {numba.__version__}".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ffcv-toolkit" / f"jit-{digest.hexdigest()[:16]}"


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(_cache_folder())

# Stages run in threads beside training: they must not hold the GIL.
jit = numba.njit(cache=True, nogil=True, error_model="numpy")


# By symbol and not by ctypes pointer, so that code which calls them can be cached on disk.
binding.load_library_permanently(library_path())

_pointer, _int, _long = types.uintp, types.int32, types.int64
kernels_open = types.ExternalFunction("kernels_open", _pointer())
kernels_close = types.ExternalFunction("kernels_close", types.void(_pointer))
# Arguments: see kernels.cpp
kernels_cut = types.ExternalFunction(
    "kernels_cut",
    _int(_pointer, _pointer, types.uint64, *[_long] * 3, *[_pointer] * 2, *[_long] * 3, *[_pointer] * 3, _long),
)
