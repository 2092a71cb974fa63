"""FFCV-SSL's random erasing (Zhong and others, "Random erasing data augmentation", 2020)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.kernels.jit import jit

_TRIES = 10


@jit
def _erase(images, _, drawn, parameters):
    p, scale, ratio, mean = parameters
    count, height, width, channels = images.shape
    for n in range(count):
        if drawn[n, 0] >= p:
            continue
        for attempt in range(_TRIES):
            first = 1 + 4 * attempt
            area = height * width * (scale[0] + (scale[1] - scale[0]) * drawn[n, first])
            aspect = np.exp(np.log(ratio[0]) + (np.log(ratio[1]) - np.log(ratio[0])) * drawn[n, first + 1])
            h, w = int(round(np.sqrt(area / aspect))), int(round(np.sqrt(area * aspect)))
            if 0 < h <= height and 0 < w <= width:
                top = int(drawn[n, first + 2] * (height - h + 1))
                left = int(drawn[n, first + 3] * (width - w + 1))
                for c in range(channels):
                    images[n, top : top + h, left : left + w, c] = mean[c]
                break
    return images


class RandomErasing(Drawn):
    """With probability `erase_prob` paint a rectangle of each image with the colour `mean`. `scale`: bounds of its
    share of the area. `ratio`: bounds of its width / height."""

    kernel, kinds = _erase, 1 + 4 * _TRIES

    def __init__(
        self, erase_prob: float = 0.5, scale=(0.08, 0.4), ratio=(0.3, 3), mean=(128, 128, 128), seed: int | None = None
    ):
        super().__init__()
        self.erase_prob, self.scale, self.ratio, self.mean, self.seed = erase_prob, scale, ratio, mean, seed

    def parameters(self) -> tuple:
        """The probability, the bounds and the colour."""
        scale, ratio = tuple(map(float, self.scale)), tuple(map(float, self.ratio))
        return float(self.erase_prob), scale, ratio, np.array(self.mean)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, in the same memory."""
        return replace(previous_state, jit_mode=True), None
