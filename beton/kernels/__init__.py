"""The compiled kernels: a C++ library that is built with the package.

It is loaded when it is first used, and called without the GIL.
"""

import ctypes
import functools
import sys
import threading
import weakref
from pathlib import Path

import numpy as np

from beton.errors import UserError

DECODE_WHOLE = 5
MOST_VIEWS = 64  # as in kernels.cpp
# What a code of kernels_crop_all other than 0 means (kernels.h)
CODES = {
    1: "it is not a JPEG",
    2: "the JPEG has another size than the file says",
    3: "it is damaged",
    4: "its blocks have another size than the file says",
    DECODE_WHOLE: "the kernels cannot decode it",
}

_pointer, _size, _long = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int64
# Result and arguments of each function, as in the C++ files
SIGNATURES = {
    "kernels_open": (_pointer, []),
    "kernels_close": (None, [_pointer]),
    "kernels_times": (_pointer, [_pointer]),
    "kernels_crop_all": (ctypes.c_int, [*[_pointer] * 6, _long, *[_pointer] * 2, _long, _pointer]),
    "kernels_decode_jpeg": (ctypes.c_int, [_pointer, ctypes.c_char_p, _size, *[_long] * 3, _pointer]),
    "kernels_blocks_size": (_size, [_long, _long]),
    "kernels_encode_blocks": (None, [_pointer, _long, _long, _pointer]),
    "kernels_guard": (_pointer, [_pointer, _size]),
    "kernels_unguard": (None, [_pointer]),
}


def library_path() -> str:
    """Where the compiled library lies; raises UserError when it was not built."""
    path = Path(__file__).parent / f"_kernels.{'dll' if sys.platform == 'win32' else 'so'}"
    if not path.exists():
        raise UserError("the compiled kernels are missing", "run ./setup.sh, or `pip install -e .`")
    return str(path)


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(library_path())  # a CDLL gives the GIL up during calls
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def open_scratch() -> int:
    """Memory that the kernels use again for each photo; close it with close_scratch. For one thread at a time."""
    return _library().kernels_open()


def close_scratch(scratch: int) -> None:
    """Free what open_scratch made."""
    _library().kernels_close(scratch)


def times(scratch: int) -> np.ndarray:
    """From now on the kernels count the nanoseconds (int64, 3) that they read, decode and resize with a scratch; the
    array grows as they do, and is good until the scratch is closed.
    """
    return np.ctypeslib.as_array((ctypes.c_int64 * 3).from_address(_library().kernels_times(scratch)))


class _Scratch:
    """Closed when its thread ends."""

    def __init__(self):
        self.address, self._close = open_scratch(), _library().kernels_close

    def __del__(self):
        self._close(self.address)


_of_thread = threading.local()


def _scratch() -> _Scratch:
    """This thread's own."""
    if not hasattr(_of_thread, "scratch"):
        _of_thread.scratch = _Scratch()
    return _of_thread.scratch


def crop(
    payload: np.ndarray, mode: int, size: tuple, box: tuple, window: tuple, image_size: tuple, mirror: bool = False
) -> np.ndarray | None:
    """A rectangle of a stored photo, resized to an image (uint8, H x W x 3, RGB).

    `payload`: uint8 bytes. `mode`: code of its storage mode (beton/format/modes). `size`: the photo's height and width.
    `box`: top, left, height, width of the rectangle; `window`: rows, columns, top, left, filter (beton/stages/base.py).
    `image_size`: H, W. `mirror`: left-right, at last. None where the payload is not for the kernels (a progressive
    JPEG, say): decode it whole. Raises ValueError with the reason when the payload is damaged.
    """
    payload = np.ascontiguousarray(payload, np.uint8)
    record = np.zeros(1, [("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
    record["mode"], record["height"], record["width"] = mode, *size
    place = np.array([*box, *window, mirror, 0, 0], np.int64)
    pixels = np.empty((1, *image_size, 3), np.uint8)
    records = Records(record, np.array([payload.size]))
    code, _ = crop_all(_scratch().address, payload, records, np.zeros(1, np.int64), place, [View(pixels)])
    if code == DECODE_WHOLE:
        return None
    if code:
        raise ValueError(CODES[code])
    return pixels[0]


class View:
    """What crop_all makes of each photo: `images` (n x H x W x 3), uint8, or float32, times and plus `scale_shift`
    (float32, 6). `colours`: the two numbers of beton.stages.plan.Plan."""

    def __init__(self, images: np.ndarray, colours: tuple[int, int] = (-1, 0), scale_shift: np.ndarray | None = None):
        self.kept = images, scale_shift  # their addresses are used
        address, whole = _address(images), images.itemsize == 1
        scales = 0 if scale_shift is None else _address(scale_shift)
        self.row = (*colours, *images.shape[1:3], address if whole else 0, 0 if whole else address, scales)


@functools.cache
def _layout(dtype: np.dtype, step: int) -> np.ndarray:
    """Where a record has what: for records (beton.format.fields.image) that are `step` bytes apart."""
    return np.array([step, *(dtype.fields[name][1] for name in ("mode", "width", "height", "data_ptr"))])


class Records:
    """What a file says of its photos: `records` (those of beton.format.fields.image) and `sizes` (int64) of the
    payloads."""

    def __init__(self, records: np.ndarray, sizes: np.ndarray):
        self.kept = records, _layout(records.dtype, records.strides[0]), sizes  # their addresses are used
        self.addresses = tuple(map(_address, self.kept))

    def __len__(self) -> int:
        return len(self.kept[0])


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]  # in a third of the time that array.ctypes.data takes


def crop_all(
    scratch: int, file: np.ndarray, records: Records, samples: np.ndarray, places: np.ndarray, views: list[View]
) -> tuple[int, int]:
    """Rectangles of many photos of a file as images; returns (code, n) for the first that is not good, or (0, -1).

    `scratch`: of open_scratch. `file` (uint8): all of it. `samples` (int64, n) of `records`. `places` (int64,
    n x views x 12): of beton.stages.plan.Plan. Each photo is decoded once for all `views`, at most MOST_VIEWS.
    """
    failed, rows = ctypes.c_int64(-1), np.array([view.row for view in views], np.int64)
    about = _address(samples), len(samples), _address(places), _address(rows), len(rows)
    code = _library().kernels_crop_all(scratch, _address(file), *records.addresses, *about, ctypes.byref(failed))
    return code, failed.value


def decode(payload: np.ndarray, mode: int, height: int, width: int) -> np.ndarray | None:
    """A stored photo as it is (uint8, height x width x 3, RGB); None, and raises, as `crop` does."""
    return crop(payload, mode, (height, width), (0, 0, height, width), (height, width, 0, 0, 2), (height, width))


def decode_jpeg(data: bytes, height: int, width: int, bgr: bool = False) -> np.ndarray | None:
    """A baseline colour JPEG as Pillow decodes it, the same bits in less time (uint8, height x width x 3, RGB or BGR).

    None for all other JPEGs, and for one that is damaged in the least: Pillow may still make something of it.
    """
    pixels = np.empty((height, width, 3), np.uint8)
    code = _library().kernels_decode_jpeg(_scratch().address, data, len(data), height, width, bgr, pixels.ctypes.data)
    return None if code else pixels


def encode_blocks(pixels: np.ndarray) -> np.ndarray:
    """Photo (uint8, H x W x 3) -> its payload (uint8) for the storage mode `blocks`."""
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    payload = np.empty(_library().kernels_blocks_size(height, width), np.uint8)
    _library().kernels_encode_blocks(pixels.ctypes.data, height, width, payload.ctypes.data)
    return payload


class Guard:
    """Where a part of `mapped` (uint8, a file in memory) cannot be read, which would end the process (SIGBUS), it reads
    as zeros, and `torn` is True from then on. Until close(), which comes before the file is unmapped."""

    def __init__(self, mapped: np.ndarray):
        self._mapped = mapped  # it is not unmapped before
        address = _library().kernels_guard(mapped.ctypes.data, mapped.size)
        self._torn = ctypes.c_int32.from_address(address) if address else ctypes.c_int32(0)
        self.close = weakref.finalize(self, _library().kernels_unguard, address) if address else lambda: None

    @property
    def torn(self) -> bool:
        """Whether a part was not there when it was read."""
        return self._torn.value != 0
