"""The functions of FFCV's library that users' decoders call, by our kernels; numba compiles calls of them."""

from __future__ import annotations

import ctypes

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

from beton import kernels
from beton.format.modes import by_code
from beton.stages.filters import AREA

_JPG, _RAW = 0, 1
_memmove = types.ExternalFunction("memmove", types.voidptr(types.voidptr, types.voidptr, types.uintp))


def _move(destination: int, source: int, size: int) -> None:
    ctypes.memmove(destination, source, size)


@overload(_move)
def _move_compiled(destination, source, size):
    return lambda destination, source, size: _memmove(destination, source, size)


def memcpy(source: np.ndarray, dest: np.ndarray) -> None:
    """Copy all bytes of `source` to the beginning of `dest`, whatever their types; both are contiguous."""
    _move(dest.ctypes.data, source.ctypes.data, source.size * source.itemsize)


def decode_image(payload: np.ndarray, mode: int, height: int, width: int) -> np.ndarray:
    """The pixels (uint8, height x width x 3) of a stored photo. Raises ValueError where it is damaged."""
    modes = by_code()
    if mode not in modes:
        raise ValueError(f"there is no storage mode {mode}")
    return modes[mode].decode(payload, height, width)


def crop_image(payload: np.ndarray, mode: int, size: tuple[int, int], box: tuple, output_size: tuple[int, int]):
    """A rectangle (top, left, height, width) of a stored photo of `size`, resized to `output_size` by area (uint8,
    H x W x 3). Raises ValueError where it is damaged, or the rectangle not within it."""
    top, left, height, width = map(int, box)
    if not (top >= 0 and left >= 0 and 0 < height <= size[0] - top and 0 < width <= size[1] - left):
        raise ValueError(f"the crop {box} (top, left, height, width) is not within {size[0]} x {size[1]} pixels")
    window = (*output_size, 0, 0, AREA)
    made = kernels.crop(payload, mode, size, (top, left, height, width), window, output_size)
    if made is None:  # the kernels cannot decode it
        pixels = np.ascontiguousarray(decode_image(payload, mode, *size)).reshape(-1)
        made = kernels.crop(pixels, _RAW, size, (top, left, height, width), window, output_size)
    return made


def _decode(source, dst, height, width):
    pixels = decode_image(source, _JPG, int(height), int(width))
    dst.reshape(-1)[: pixels.size] = pixels.reshape(-1)


@overload(_decode)
def _decode_compiled(source, dst, height, width):
    decode = _decode

    def compiled(source, dst, height, width):
        with numba.objmode():
            decode(source, dst, height, width)

    return compiled


def imdecode(
    source, dst, source_height, source_width, crop_height=None, crop_width=None, offset_x=0, offset_y=0,
    scale_factor_num=1, scale_factor_denom=1, enable_crop=False, do_flip=False,
):  # fmt: skip
    """Decode a JPEG (uint8 bytes) of `source_height` x `source_width` pixels into the beginning of `dst` (uint8).

    Raises ValueError where it is damaged, and for what nobody uses: a crop, a scale other than 1, a flip.
    """
    if enable_crop or do_flip or scale_factor_num != scale_factor_denom:
        raise ValueError("imdecode decodes whole JPEGs; crop, scale and flip the result")
    _decode(source, dst, source_height, source_width)


def _resize(source, top, bottom, left, right, destination):
    height, width = source.shape[:2]
    box = (top, left, bottom - top, right - left)
    pixels = np.ascontiguousarray(source).reshape(-1)
    destination[:] = crop_image(pixels, _RAW, (height, width), box, destination.shape[:2])


@overload(_resize)
def _resize_compiled(source, top, bottom, left, right, destination):
    resize = _resize

    def compiled(source, top, bottom, left, right, destination):
        with numba.objmode():
            resize(source, top, bottom, left, right, destination)

    return compiled


def resize_crop(source, start_row, end_row, start_col, end_col, destination):
    """A rectangle of an image (uint8, H x W x 3), to the rows and columns before the ends, resized to `destination`."""
    _resize(source, start_row, end_row, start_col, end_col, destination)
