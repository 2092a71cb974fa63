"""jitter: brightness, contrast and saturation changed by random factors, in random order.

As torchvision's ColorJitter does it with PIL: each is a blend of the image with something plain
(black, its mean grey, its grey version), and each result is cut to 0..255 and to whole numbers.
"""

import itertools

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Pixels, check_number
from beton.stages.gray import luma

_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)
ORDERS = np.array(list(itertools.permutations(range(3))))


@jit
def _blend(plain, value, factor):
    """From `plain` (factor 0) to `value` (factor 1) or beyond, as PIL's Image.blend: cut off, not rounded."""
    mixed = np.float32(plain) + factor * np.float32(np.int32(value) - np.int32(plain))
    return np.uint8(min(max(mixed, np.float32(0)), np.float32(255)))


@jit
def _away_from(image, plain, factor):
    """Blend an image with one grey value: 0 changes the brightness, its mean the contrast."""
    values = image.reshape(-1)
    for i in range(len(values)):
        values[i] = _blend(plain, values[i], factor)


@jit
def _mean_gray(image):
    """Mean brightness, rounded."""
    height, width, _ = image.shape
    total = 0
    for y in range(height):
        for x in range(width):
            total += luma(image[y, x, 0], image[y, x, 1], image[y, x, 2])
    return int(total / (height * width) + 0.5)


@jit
def _saturate(image, factor):
    height, width, _ = image.shape
    for y in range(height):
        for x in range(width):
            plain = luma(image[y, x, 0], image[y, x, 1], image[y, x, 2])
            for c in range(3):
                image[y, x, c] = _blend(plain, image[y, x, c], factor)


@jit
def _draw(keys, stage, lows, highs):
    orders, factors = np.empty(len(keys), np.int64), np.empty((len(keys), 3), np.float32)
    for n in range(len(keys)):
        orders[n] = int(len(ORDERS) * uniform(keys[n], stage, 0))
        for k in range(3):
            factors[n, k] = lows[k] + (highs[k] - lows[k]) * uniform(keys[n], stage, 1 + k)
    return orders, factors


@jit
def _jitter(images, orders, factors):
    for n in range(len(images)):
        for k in ORDERS[orders[n]]:
            factor = factors[n, k]
            if factor == 1:
                continue
            if k == _BRIGHTNESS:
                _away_from(images[n], 0, factor)
            elif k == _CONTRAST:
                _away_from(images[n], _mean_gray(images[n]), factor)
            else:
                _saturate(images[n], factor)


class Jitter(Pixels):
    """Change brightness, contrast and saturation of each image, in random order.

    Each factor is uniform in [max(0, 1 - x), 1 + x], where x is `brightness`, `contrast` or
    `saturation`; the latter two are as `brightness` unless given, and 0 leaves one out.
    """

    replaces = ("ColorJitter",)
    keeps_places = True

    def __init__(self, brightness: float = 0.3, contrast: float | None = None, saturation: float | None = None):
        contrast = brightness if contrast is None else contrast
        saturation = brightness if saturation is None else saturation
        self.strengths = (brightness, contrast, saturation)
        for name, value in zip(("brightness", "contrast", "saturation"), self.strengths, strict=True):
            check_number(name, value, 0, 100)

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each image a row of ORDERS (its number) and the three factors (float32, n x 3)."""
        lows = tuple(float(max(0, 1 - x)) for x in self.strengths)
        highs = tuple(float(1 + x) for x in self.strengths)
        return _draw(keys, self.stage_index, lows, highs)

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Change images (uint8, n x H x W x 3) in place."""
        _jitter(images, *self.draw(keys))

    def reference(self):
        """torchvision's ColorJitter, without hue."""
        from torchvision.transforms import ColorJitter

        return ColorJitter(*self.strengths)


STAGE = Jitter
