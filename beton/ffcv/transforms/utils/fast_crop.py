"""Crops for users' own operations, by the names that FFCV has for them; numba compiles calls of them."""

from __future__ import annotations

import numpy as np

from beton.ffcv.libffcv import resize_crop as _resize_crop
from beton.kernels.jit import jit

_TRIES = 10

resize_crop = jit(_resize_crop)


@jit
def get_random_crop(height, width, scale, ratio):
    """Top, left, height, width of a crop as torchvision's RandomResizedCrop draws it; if no draw fits, the largest in
    the centre within the ratio."""
    low, high = np.log(ratio[0]), np.log(ratio[1])
    for _ in range(_TRIES):
        area = height * width * np.random.uniform(scale[0], scale[1])
        aspect = np.exp(np.random.uniform(low, high))
        w, h = int(round(np.sqrt(area * aspect))), int(round(np.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            top = min(int(np.random.uniform(0, height - h + 1)), height - h)
            left = min(int(np.random.uniform(0, width - w + 1)), width - w)
            return top, left, h, w
    h, w = int(height), int(width)
    if w < ratio[0] * h:
        h = max(1, int(round(w / ratio[0])))
    elif w > ratio[1] * h:
        w = max(1, int(round(h * ratio[1])))
    return (height - h) // 2, (width - w) // 2, h, w


@jit
def get_center_crop(height, width, ratio):
    """Top, left, height, width of a centred square of `ratio` times the short side."""
    side = int(ratio * min(height, width))
    return (height - side) // 2, (width - side) // 2, side, side
