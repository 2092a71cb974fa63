"""The compiled kernels below the JIT operations: a C++ library that is built with the package.

The JIT code calls it by symbol (pipelines/jit.py); what Python itself needs of it is here.
"""

import ctypes
import importlib.machinery
from pathlib import Path

import numpy as np

from pipelines.errors import UserError

CODES = {
    1: "it is not a JPEG",
    2: "the JPEG has another size than the file says",
    3: "it is damaged",
    4: "its blocks have another size than the file says",
}


def library_path() -> str:
    """Where the compiled library lies; raises UserError when it was not built."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).parent / f"_kernels{suffix}"
        if path.exists():
            return str(path)
    raise UserError("the compiled kernels are missing", "run ./setup.sh, or `pip install -e .`")


_library = ctypes.CDLL(library_path())  # a CDLL gives the GIL up during calls
_pointer, _size, _long = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64
_library.kernels_open.restype = _pointer
_library.kernels_close.argtypes = [_pointer]
_library.kernels_cut.argtypes = [
    _pointer, _pointer, _size, *[_long] * 3, *[_pointer] * 2, *[_long] * 3, *[_pointer] * 3, _long,
]  # fmt: skip
_library.kernels_blocks_size.argtypes, _library.kernels_blocks_size.restype = [_long, _long], _size
_library.kernels_encode_blocks.argtypes = [_pointer, _long, _long, _pointer]


def cut(payload: np.ndarray, mode: int, size: tuple, box, window, image_size: tuple, mirror=False) -> np.ndarray:
    """A rectangle of a stored photo as an image (uint8, H x W x 3).

    `payload`: uint8 bytes. `mode`: pipelines.beton's JPEG, RAW or BLOCKS. `size`: the photo's height and width. `box`:
    top, left, height, width of the rectangle; `window`: rows, columns, top, left, filter (Stage.windows).
    `image_size`: H, W. `mirror`: left-right, at last. Raises ValueError with the reason when the payload is damaged.
    """
    payload = np.ascontiguousarray(payload, np.uint8)
    box, window, scale_shift = np.array(box, np.int64), np.array(window, np.int64), np.zeros(6, np.float32)
    pixels = np.empty((*image_size, 3), np.uint8)
    scratch = _library.kernels_open()
    try:
        code = _library.kernels_cut(
            scratch, payload.ctypes.data, payload.size, mode, *size, box.ctypes.data, window.ctypes.data, mirror,
            *image_size, pixels.ctypes.data, None, scale_shift.ctypes.data, 0,
        )  # fmt: skip
    finally:
        _library.kernels_close(scratch)
    if code:
        raise ValueError(CODES[code])
    return pixels


def decode(payload: np.ndarray, mode: int, height: int, width: int) -> np.ndarray:
    """A stored photo as it is (uint8, H x W x 3); raises as cut does."""
    return cut(payload, mode, (height, width), (0, 0, height, width), (height, width, 0, 0, 2), (height, width))


def encode_blocks(pixels: np.ndarray) -> np.ndarray:
    """Photo (uint8, H x W x 3) -> its payload (uint8) for write_mode=blocks."""
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    payload = np.empty(_library.kernels_blocks_size(height, width), np.uint8)
    _library.kernels_encode_blocks(pixels.ctypes.data, height, width, payload.ctypes.data)
    return payload
