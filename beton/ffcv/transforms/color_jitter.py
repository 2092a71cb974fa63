"""Brightness, contrast and saturation, each changed with a probability by a random factor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.kernels.jit import jit


@jit
def _blend(value, plain, factor):
    return min(max(factor * value + (1 - factor) * plain, 0.0), 255.0)


@jit
def _gray(red, green, blue):
    """ITU-R 601, cut off to a whole number."""
    return np.uint8(0.2989 * red + 0.587 * green + 0.114 * blue)


@jit
def _factor(chance, share, p, magnitude):
    """1 where the image stays as it is."""
    low = max(0.0, 1 - magnitude)
    return low + (1 + magnitude - low) * share if chance < p else 1.0


@jit
def _brightness(images, _, drawn, parameters):
    for n in range(len(images)):
        factor = _factor(drawn[n, 0], drawn[n, 1], parameters[0], parameters[1])
        values = images[n].reshape(-1)
        if factor != 1:
            for i in range(len(values)):
                values[i] = _blend(values[i], 0, factor)
    return images


@jit
def _contrast(images, _, drawn, parameters):
    count, height, width, _ = images.shape
    for n in range(count):
        factor = _factor(drawn[n, 0], drawn[n, 1], parameters[0], parameters[1])
        if factor == 1:
            continue
        total = 0
        for y in range(height):
            for x in range(width):
                total += _gray(images[n, y, x, 0], images[n, y, x, 1], images[n, y, x, 2])
        values, mean = images[n].reshape(-1), total / (height * width)
        for i in range(len(values)):
            values[i] = _blend(values[i], mean, factor)
    return images


@jit
def _saturation(images, _, drawn, parameters):
    count, height, width, _ = images.shape
    for n in range(count):
        factor = _factor(drawn[n, 0], drawn[n, 1], parameters[0], parameters[1])
        if factor == 1:
            continue
        for y in range(height):
            for x in range(width):
                gray = _gray(images[n, y, x, 0], images[n, y, x, 1], images[n, y, x, 2])
                for c in range(3):
                    images[n, y, x, c] = _blend(images[n, y, x, c], gray, factor)
    return images


class _Jitter(Drawn):
    """With probability `p` change images (uint8, N x H x W x 3) by a factor from 1 - `magnitude` to 1 + `magnitude`."""

    kinds = 2

    def __init__(self, magnitude: float, p: float = 0.5):
        super().__init__()
        self.p, self.magnitude = p, magnitude

    def parameters(self) -> tuple:
        """The probability and how far."""
        return float(self.p), float(self.magnitude)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, in the same memory."""
        return replace(previous_state, jit_mode=True), None


class RandomBrightness(_Jitter):
    """Blend images with black."""

    kernel = _brightness


class RandomContrast(_Jitter):
    """Blend images with their mean grey."""

    kernel = _contrast


class RandomSaturation(_Jitter):
    """Blend images with themselves in grey."""

    kernel = _saturation
