"""blur: a Gaussian blur, approximated by box blurs as PIL does it.

PIL's GaussianBlur runs three "extended" box blurs in each direction: boxes whose two outermost
pixels have a smaller weight, so that the sum has the wanted variance exactly (Gwosdek, Grewenig,
Bruhn and Weickert, "Theoretical foundations of Gaussian convolution by extended box filtering",
2011; the numbers in brackets below are its equations). DeiT draws the radius uniformly.
"""

import math

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Pixels, check_number, check_range

_PASSES = 3
# Weights and sums have 24 bits of fraction, as PIL's, so that even the roundings are the same
_ONE = 1 << 24
_HALF = np.uint32(1 << 23)  # or numba would add in floats


@jit
def _box_radius(sigma):
    """Radius of the box, with a fraction, whose repeated blur has the standard deviation `sigma`."""
    variance = sigma * sigma / _PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)  # [7], [11]
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)  # [14]
    return whole + part / (6 * (variance - (whole + 1) * (whole + 1)))


@jit
def _blur_columns(source, target, sums, radius, inner, outer):
    """One box blur along the first axis (uint8, rows x n); `sums` (uint32, n) is room for the sums.

    All of a row at once: the sums of a row do not wait for each other. Rows beyond the edge are as the edge.
    """
    rows, length = source.shape
    last = rows - 1
    sums[:] = 0
    for y in range(-radius - 1, radius):
        row = source[min(max(y, 0), last)]
        for x in range(length):
            sums[x] += row[x]
    for y in range(rows):
        before, into = source[max(y - radius - 1, 0)], source[min(y + radius, last)]
        after, out = source[min(y + radius + 1, last)], target[y]
        for x in range(length):
            total = np.uint32(sums[x] + into[x] - before[x])
            sums[x] = total
            far = np.uint32(before[x]) + np.uint32(after[x])
            out[x] = np.uint8(np.uint32(total * inner + far * outer + _HALF) >> 24)


@jit
def _blur_three_times(one, other, sums, radius):
    """Box blurs along the first axis from `one` to `other`; both are overwritten."""
    whole = int(radius)
    inner = np.uint32(np.float32(_ONE) / np.float32(2 * radius + 1))
    outer = np.uint32((_ONE - (2 * whole + 1) * np.int64(inner)) // 2)
    _blur_columns(one, other, sums, whole, inner, outer)
    _blur_columns(other, one, sums, whole, inner, outer)
    _blur_columns(one, other, sums, whole, inner, outer)


@jit
def _transpose(source, target):
    height, width, _ = source.shape
    for y in range(height):
        for x in range(width):
            for c in range(3):
                target[x, y, c] = source[y, x, c]


@jit
def blur_image(image, sigma):
    """Blur an image (uint8, H x W x 3, C-contiguous) in place: first along its rows, then along its columns."""
    height, width, _ = image.shape
    radius = _box_radius(sigma)
    sums = np.empty(3 * max(height, width), np.uint32)
    turned, other = np.empty((width, height, 3), np.uint8), np.empty((width, height, 3), np.uint8)
    _transpose(image, turned)
    _blur_three_times(turned.reshape(width, -1), other.reshape(width, -1), sums[: 3 * height], radius)
    upright = turned.reshape(height, width, 3)
    _transpose(other, upright)
    _blur_three_times(upright.reshape(height, -1), image.reshape(height, -1), sums[: 3 * width], radius)


@jit
def _sigmas(keys, stage, p, low, high):
    sigmas = np.zeros(len(keys))
    for n in range(len(keys)):
        if uniform(keys[n], stage, 0) < p:
            sigmas[n] = low + (high - low) * uniform(keys[n], stage, 1)
    return sigmas


@jit
def _blur(images, sigmas):
    for n in range(len(images)):
        if sigmas[n] > 0:
            blur_image(images[n], sigmas[n])


class PilBlur:
    """PIL's GaussianBlur of a random radius with probability `p`, drawn from torch's generator."""

    def __init__(self, sigma: tuple[float, float], p: float):
        self.sigma, self.p = sigma, p

    def __call__(self, image):
        """The blurred PIL image, or the image itself."""
        import torch
        from PIL import ImageFilter

        if torch.rand(1).item() >= self.p:
            return image
        return image.filter(ImageFilter.GaussianBlur(torch.empty(1).uniform_(*self.sigma).item()))


class Blur(Pixels):
    """Blur each image with probability `p` by a Gaussian whose standard deviation is uniform in `sigma` (pixels)."""

    replaces = ("GaussianBlur",)
    keeps_places = True

    def __init__(self, sigma=(0.1, 2.0), p: float = 1.0):
        check_range("sigma", sigma, 0, 100)
        check_number("p", p, 0, 1)
        self.sigma, self.p = tuple(map(float, sigma)), float(p)

    def sigmas(self, keys: np.ndarray) -> np.ndarray:
        """The standard deviation for each image (float64), 0 for those that stay as they are."""
        return _sigmas(keys, self.stage_index, self.p, *self.sigma)

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Blur images (uint8, n x H x W x 3) in place."""
        _blur(images, self.sigmas(keys))

    def reference(self):
        """DeiT's GaussianBlur: PIL's, of a random radius."""
        return PilBlur(self.sigma, self.p)


STAGE = Blur
