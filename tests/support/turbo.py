"""libjpeg-turbo through its C interface: what JPEGs are compared with."""

import ctypes

import numpy as np
import pytest

ACCURATE, STOP_ON_WARNING, FAST = 4096, 8192, 2048
try:
    _library = ctypes.CDLL("libturbojpeg.so.0")
except OSError:
    pytest.skip("libturbojpeg, which JPEGs are compared with, is not installed", allow_module_level=True)
_library.tjInitDecompress.restype = _library.tjInitCompress.restype = ctypes.c_void_p
_decoder, _encoder = ctypes.c_void_p(_library.tjInitDecompress()), ctypes.c_void_p(_library.tjInitCompress())


def decode(data, height: int, width: int, flags: int = ACCURATE | STOP_ON_WARNING) -> np.ndarray | None:
    """A whole JPEG (bytes, or an array of them) as RGB, or None; FAST is what FFCV uses."""
    data, pixels = bytes(data), np.zeros((height, width, 3), np.uint8)
    target = ctypes.c_void_p(pixels.ctypes.data)
    failed = _library.tjDecompress2(_decoder, data, ctypes.c_ulong(len(data)), target, width, 0, height, 0, flags)
    return None if failed else pixels


def planes(data: bytes, height: int, width: int, tall: int, wide: int, shrink: int = 0) -> list[np.ndarray] | None:
    """The planes as they are stored, with the padding that libjpeg-turbo gives them."""
    rows, columns = -(-height // 2**shrink), -(-width // 2**shrink)
    small = (-(-rows // tall), -(-columns // wide))
    found = [np.zeros((small[0] * tall, small[1] * wide), np.uint8), np.zeros(small, np.uint8)]
    found.append(found[1].copy())
    pointers = (ctypes.c_void_p * 3)(*(plane.ctypes.data for plane in found))
    length, flags = ctypes.c_ulong(len(data)), ctypes.c_int(ACCURATE | STOP_ON_WARNING)
    failed = _library.tjDecompressToYUVPlanes(_decoder, data, length, pointers, columns, None, rows, flags)
    return None if failed else found


def encode(photo: np.ndarray) -> bytes:
    """A 4:2:0 JPEG of quality 90; with TJ_ARITHMETIC=1 in the environment of arithmetic coding."""
    buffer, length, height, width = ctypes.c_void_p(), ctypes.c_ulong(), *photo.shape[:2]
    pixels, target = ctypes.c_void_p(photo.ctypes.data), (ctypes.byref(buffer), ctypes.byref(length))
    assert not _library.tjCompress2(_encoder, pixels, width, 0, height, 0, *target, ctypes.c_int(2), 90, 0)
    payload = ctypes.string_at(buffer, length.value)
    _library.tjFree(buffer)
    return payload
