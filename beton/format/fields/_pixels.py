"""A part of an image of any dtype and number of channels, as the kernels cut it out of a photo.

A place (int64, 12) is what beton.stages.plan.Plan.places gives: a box, a window, mirrored or not, moved by.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from beton.stages.filters import AREA, BICUBIC, BILINEAR

_FILTERS = {BILINEAR: Image.Resampling.BILINEAR, BICUBIC: Image.Resampling.BICUBIC}


def cut(
    pixels: np.ndarray, place: np.ndarray, height: int, width: int, fill: tuple[int, ...] | None = None
) -> np.ndarray:
    """The part of `pixels` (H x W x C; uint8, uint16 or float32) at the box and the window of a place: height x width.

    Resized by means over areas or by Pillow's bilinear and bicubic filters; of whole numbers the result is rounded.
    Beyond the edges it shows `fill` (C numbers), or where that is None the mirrored pixels.
    """
    top, left, box_height, box_width, rows, columns, window_top, window_left, how = place[:9].tolist()
    box = pixels[top : top + box_height, left : left + box_width]
    if (box_height, box_width) != (rows, columns):
        box = _resized(box, rows, columns, how)
    return _window(box, window_top, window_left, height, width, fill)


def _resized(pixels: np.ndarray, rows: int, columns: int, how: int) -> np.ndarray:
    whole = pixels.dtype != np.float32
    if how != AREA:
        channels = [_by_pillow(pixels[..., c], rows, columns, _FILTERS[how]) for c in range(pixels.shape[2])]
        resized = np.stack(channels, axis=2)
    elif rows <= pixels.shape[0] and columns <= pixels.shape[1]:
        some = [np.ascontiguousarray(pixels[..., c : c + 4]) for c in range(0, pixels.shape[2], 4)]  # OpenCV does 4
        some = [cv2.resize(channels, (columns, rows), interpolation=cv2.INTER_AREA) for channels in some]
        return np.concatenate([channels.reshape(rows, columns, -1) for channels in some], axis=2)
    else:
        tall = np.tensordot(_area_weights(pixels.shape[0], rows), pixels, axes=1)
        resized = np.matmul(_area_weights(pixels.shape[1], columns), tall)
    if whole:
        resized = np.clip(np.rint(resized), 0, np.iinfo(pixels.dtype).max)
    return resized.astype(pixels.dtype, copy=False)


def _area_weights(length: int, size: int) -> np.ndarray:
    """Each of `size` equal parts of a line of `length` pixels as means of them (float32, size x length)."""
    edges, pixels = np.linspace(0, length, size + 1), np.arange(length)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(covered, 0) * (size / length)).astype(np.float32)


def _by_pillow(plane: np.ndarray, rows: int, columns: int, resampling) -> np.ndarray:
    plane = np.ascontiguousarray(plane, None if plane.dtype == np.uint8 else np.float32)
    return np.asarray(Image.fromarray(plane).resize((columns, rows), resampling))


def _window(pixels: np.ndarray, top: int, left: int, height: int, width: int, fill) -> np.ndarray:
    rows, columns = pixels.shape[:2]
    before = max(0, -top), max(0, -left)
    after = max(0, top + height - rows), max(0, left + width - columns)
    if any(before + after):
        around = [(before[0], after[0]), (before[1], after[1])]
        if fill is None:
            pixels = np.pad(pixels, [*around, (0, 0)], mode="reflect")
        else:
            planes = [np.pad(pixels[..., c], around, constant_values=number) for c, number in enumerate(fill)]
            pixels = np.stack(planes, axis=-1)
    top, left = top + before[0], left + before[1]
    return pixels[top : top + height, left : left + width]
