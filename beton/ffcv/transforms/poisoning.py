"""Images poisoned with a mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import ready
from beton.kernels.jit import jit


@jit
def _poison(images, indices, chosen, keep, add, low, high):
    for n in range(len(images)):
        place = np.searchsorted(chosen, indices[n])
        if place == len(chosen) or chosen[place] != indices[n]:
            continue
        height, width, channels = images[n].shape
        for y in range(height):
            for x in range(width):
                for c in range(channels):
                    kept = np.float32(images[n, y, x, c] * keep[y, x])
                    mixed = np.float32(kept + add[y, x, c])
                    images[n, y, x, c] = min(max(mixed, np.float32(low)), np.float32(high))
    return images


class Poison(Operation):
    """Blend `mask` (H x W x 3) into the images of the samples `indices`, with the opacity `alpha` (H x W, 0 to 1).

    The results are cut off at `clamp`.
    """

    def __init__(self, mask: np.ndarray, alpha: np.ndarray, indices: Sequence[int], clamp=(0, 255)):
        super().__init__()
        self.mask, self.alpha, self.clamp = mask, alpha, clamp
        self.indices = np.sort(indices)

    def generate_code(self) -> Callable:
        """f(batch, memory, indices)."""
        alpha = np.asarray(self.alpha, np.float64)
        chosen, keep, add = self.indices, 1 - alpha, np.asarray(self.mask, np.float64) * alpha[:, :, None]
        low, high = map(float, self.clamp)

        def poison(images, _, indices):
            return _poison(images, indices, chosen, keep, add, low, high)

        poison.with_indices = True
        return ready(poison)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """As before, in the same memory. Raises ValueError where the mask has another size than the images."""
        shape = previous_state.shape
        if shape is not None and not np.shape(self.mask) == tuple(shape) == (*np.shape(self.alpha), 3):
            sizes = f"a mask of {np.shape(self.mask)} and an alpha of {np.shape(self.alpha)}"
            raise ValueError(f"Poison has {sizes} for images of {tuple(shape)}")
        return replace(previous_state, jit_mode=True), None
