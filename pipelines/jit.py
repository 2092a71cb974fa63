"""The compiler of the JIT stages: numba with a disk cache that notices every change of the sources.

numba's own cache looks only at the file of the function itself, so a change in a function that it
calls would go unnoticed. Here the cache folder's name is a digest of all sources and of the versions;
numba itself adds the CPU to the key of each entry.
"""

import hashlib
import importlib.util
import os
import sys
from importlib.metadata import version
from pathlib import Path

import numba
from llvmlite import binding
from numba import types

from pipelines.errors import UserError


def _cache_folder() -> Path:
    """A folder for compiled code: below $XDG_CACHE_HOME or ~/.cache, one for each state of the sources."""
    digest = hashlib.sha256(f"{sys.version} {numba.__version__} {version('ffcv')}".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ffcv-toolkit" / f"jit-{digest.hexdigest()[:16]}"


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = str(_cache_folder())

# Stages run in threads beside training: they must not hold the GIL.
jit = numba.njit(cache=True, nogil=True, error_model="numpy")


def ffcv_library() -> str:
    """Path of FFCV's compiled library, found without importing ffcv (its import sets torch's threads to 1)."""
    package = importlib.util.find_spec("ffcv")
    folder = Path(package.origin).parent if package and package.origin else None
    found = sorted(folder.glob("_libffcv*.so")) if folder else []
    if not found:
        raise UserError("FFCV's compiled library is missing", "run ./setup.sh")
    return str(found[0])


# By symbol and not by ctypes pointer, so that code which calls them can be cached on disk.
# The library brings libturbojpeg and OpenCV along.
binding.load_library_permanently(ffcv_library())

_pointer, _int, _long = types.uintp, types.int32, types.int64
tj_init = types.ExternalFunction("tjInitDecompress", _pointer())
tj_destroy = types.ExternalFunction("tjDestroy", _int(_pointer))
tj_header = types.ExternalFunction(
    "tjDecompressHeader3", _int(_pointer, _pointer, types.uint64, _pointer, _pointer, _pointer, _pointer)
)
tj_decompress = types.ExternalFunction(
    "tjDecompress2", _int(_pointer, _pointer, types.uint64, _pointer, _int, _int, _int, _int, _int)
)
# FFCV's resize: cv::resize of a rectangle of an interleaved RGB image with cv::INTER_AREA.
ffcv_resize = types.ExternalFunction("resize", types.void(*[_long] * 11))
