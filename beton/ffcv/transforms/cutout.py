"""Cutout (DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout", 2017)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.kernels.jit import jit


@jit
def _cutout(images, _, drawn, parameters):
    size, fill = parameters
    count, height, width, channels = images.shape
    for n in range(count):
        top, left = int(drawn[n, 0] * (height - size + 1)), int(drawn[n, 1] * (width - size + 1))
        for y in range(top, top + size):
            for x in range(left, left + size):
                for c in range(channels):
                    images[n, y, x, c] = fill[c]
    return images


class Cutout(Drawn):
    """Paint a square of `crop_size` pixels at a random place in each image with the colour `fill` (RGB)."""

    kernel, kinds = _cutout, 2

    def __init__(self, crop_size: int, fill: tuple[int, int, int] = (0, 0, 0), seed: int | None = None):
        super().__init__()
        self.crop_size, self.fill, self.seed = crop_size, np.array(fill), seed

    def parameters(self) -> tuple:
        """How large, and the colour."""
        return int(self.crop_size), self.fill

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, in the same memory. Raises ValueError where the square is larger than the images."""
        if previous_state.shape is not None and self.crop_size > min(previous_state.shape[:2]):
            height, width = previous_state.shape[:2]
            raise ValueError(f"crop_size={self.crop_size} does not fit into images of {height} x {width} pixels")
        return replace(previous_state, jit_mode=True), None
