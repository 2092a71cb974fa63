"""Images moved by some pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.ffcv.transforms._labels import Label
from beton.kernels.jit import jit


@jit
def _translate(images, target, drawn, parameters):
    padding, fill = parameters
    count, height, width, channels = images.shape
    for n in range(count):
        # The image shows what is `down` and `right` pixels further in its photo
        down, right = int(drawn[n, 0] * (2 * padding + 1)) - padding, int(drawn[n, 1] * (2 * padding + 1)) - padding
        for y in range(height):
            for x in range(width):
                inside = 0 <= y + down < height and 0 <= x + right < width
                for c in range(channels):
                    target[n, y, x, c] = images[n, y + down, x + right, c] if inside else fill[c]
    return target


class RandomTranslate(Drawn):
    """Move each image by up to `padding` pixels in both directions; what becomes free is `fill` (RGB)."""

    kernel, kinds = _translate, 2

    def __init__(self, padding: int, fill: tuple[int, int, int] = (0, 0, 0), seed: int | None = None):
        super().__init__()
        self.padding, self.fill, self.seed = padding, np.array(fill), seed

    def parameters(self) -> tuple:
        """How far, and the colour."""
        return int(self.padding), self.fill

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """As before, in other memory."""
        query = AllocationQuery(previous_state.shape, previous_state.dtype)
        return replace(previous_state, jit_mode=True), query


@jit
def _label(labels, target, drawn, parameters):
    target[:, :-2] = labels
    for n in range(len(labels)):
        for k in range(2):
            target[n, k - 2] = int(drawn[n, k] * (2 * parameters[0] + 1))
    return target


class LabelTranslate(Label):
    """Where the image that RandomTranslate shows begins in the padded one: row and column, 0 to 2 * `padding`."""

    kernel, kinds, columns = _label, RandomTranslate.kinds, 2
    parameters = RandomTranslate.parameters

    def __init__(self, padding: int, fill: tuple[int, int, int] = (0, 0, 0), seed: int | None = None):
        super().__init__()
        self.padding, self.fill, self.seed = padding, np.array(fill), seed
