"""FFCV-SSL's rotated images."""

from __future__ import annotations

import math
from dataclasses import replace

from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.kernels.jit import jit


@jit
def _rotate(images, target, drawn, parameters):
    count, height, width, channels = images.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    for n in range(count):
        if drawn[n, 0] >= parameters[0]:
            target[n] = images[n]
            continue
        angle = (2 * drawn[n, 1] - 1) * parameters[1]
        cosine, sine = math.cos(angle), math.sin(angle)
        for y in range(height):
            for x in range(width):
                down, right = y - middle_y, x - middle_x
                row = int(math.floor(cosine * down + sine * right + middle_y + 0.5))
                column = int(math.floor(cosine * right - sine * down + middle_x + 0.5))
                inside = 0 <= row < height and 0 <= column < width
                for c in range(channels):
                    target[n, y, x, c] = images[n, row, column, c] if inside else 0
    return target


class Rotate(Drawn):
    """With probability `rotate_prob` turn each image by up to `angle` (radians) either way, to the nearest pixel; what
    becomes free is black."""

    kernel, kinds = _rotate, 2

    def __init__(self, rotate_prob: float = 0.5, angle: float = 0.2, seed: int | None = None):
        super().__init__()
        self.rot_prob, self.angle, self.seed = rotate_prob, angle, seed

    def parameters(self) -> tuple:
        """The probability and the angle."""
        return float(self.rot_prob), float(self.angle)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """As before, in other memory."""
        query = AllocationQuery(previous_state.shape, previous_state.dtype)
        return replace(previous_state, jit_mode=True), query
