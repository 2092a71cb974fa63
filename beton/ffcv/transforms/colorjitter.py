"""FFCV-SSL's colour jitter."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.ffcv.transforms._labels import Label
from beton.kernels.jit import jit

_RED, _GREEN, _BLUE = 0.2989, 0.5870, 0.1140  # ITU-R 601
_THIRD, _ROOT = 1 / 3, math.sqrt(1 / 3)


@jit
def _drawn_factors(drawn, parameters):
    """Factors of brightness, contrast and saturation, and the share of a turn of the hue; 1, 1, 1, 0: none."""
    factors = np.array([1.0, 1.0, 1.0, 0.0])
    if drawn[0] < parameters[0]:
        for k in range(4):
            factors[k] = parameters[1][k, 0] + (parameters[1][k, 1] - parameters[1][k, 0]) * drawn[1 + k]
    return factors


@jit
def _gray(pixel):
    return _RED * pixel[0] + _GREEN * pixel[1] + _BLUE * pixel[2]


@jit
def _jitter_pixels(pixels, factors):
    """Change the pixels (float64, n x 3) of an image in place; cut off at the end."""
    pixels *= factors[0]
    mean = 0.0
    for pixel in pixels:
        mean += _gray(pixel)
    pixels *= factors[1]
    pixels += (1 - factors[1]) * mean / len(pixels)
    # The hue: a turn about the axis of the greys, by Rodrigues' formula
    angle = 2 * math.pi * factors[3]
    along, aside = (1 - math.cos(angle)) * _THIRD, _ROOT * math.sin(angle)
    same, plus, minus = math.cos(angle) + along, along + aside, along - aside
    for pixel in pixels:
        gray = (1 - factors[2]) * _gray(pixel)
        r, g, b = factors[2] * pixel[0] + gray, factors[2] * pixel[1] + gray, factors[2] * pixel[2] + gray
        pixel[0] = same * r + minus * g + plus * b
        pixel[1] = plus * r + same * g + minus * b
        pixel[2] = minus * r + plus * g + same * b


@jit
def _jitter(images, _, drawn, parameters):
    for n in range(len(images)):
        if drawn[n, 0] >= parameters[0]:
            continue
        pixels = images[n].reshape(-1, 3).astype(np.float64)
        _jitter_pixels(pixels, _drawn_factors(drawn[n], parameters))
        values, changed = images[n].reshape(-1), pixels.reshape(-1)
        for i in range(len(values)):
            values[i] = min(max(changed[i], 0.0), 255.0)
    return images


@jit
def _label(labels, target, drawn, parameters):
    target[:, :-4] = labels
    for n in range(len(labels)):
        target[n, -4:] = _drawn_factors(drawn[n], parameters)
    return target


def _bounds(name: str, value, centre: float, low: float, high: float) -> tuple[float, float]:
    """(from, to) of a pair, or of a distance from the centre. Raises ValueError."""
    pair = (max(centre - value, low), centre + value) if isinstance(value, (int, float)) else tuple(value)
    if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
        raise ValueError(f"{name}={value!r} is neither a number nor (from, to) between {low} and {high}")
    return pair


class RandomColorJitter(Drawn):
    """With probability `jitter_prob` change brightness, contrast, saturation and hue of each image (uint8, RGB), in
    this order, by factors drawn uniformly: for x from 1 - x to 1 + x, or between a pair. `hue`: from -x to x of a turn,
    at most 0.5.
    """

    kernel, kinds = _jitter, 5

    def __init__(self, jitter_prob=0.5, brightness=0.8, contrast=0.4, saturation=0.4, hue=0.2, seed: int | None = None):
        super().__init__()
        self.jitter_prob, self.seed = jitter_prob, seed
        given = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, value in given.items():
            setattr(self, name, _bounds(name, value, 1, 0, math.inf))
        self.hue = _bounds("hue", hue, 0, -0.5, 0.5)

    def parameters(self) -> tuple:
        """The probability and the bounds."""
        bounds = (self.brightness, self.contrast, self.saturation, self.hue)
        return float(self.jitter_prob), np.array(bounds, np.float64)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, in the same memory."""
        return replace(previous_state, jit_mode=True), None


class LabelColorJitter(Label):
    """What RandomColorJitter has drawn: brightness, contrast, saturation, hue; 1, 1, 1, 0 where it did nothing."""

    kernel, kinds, columns = _label, RandomColorJitter.kinds, 4
    parameters = RandomColorJitter.parameters

    def __init__(self, jitter_prob=0.5, brightness=0, contrast=0, saturation=0, hue=0, seed: int | None = None):
        super().__init__()
        same = RandomColorJitter(jitter_prob, brightness, contrast, saturation, hue, seed)
        vars(self).update(vars(same))
