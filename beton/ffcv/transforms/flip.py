"""Left-right flips."""

from __future__ import annotations

from dataclasses import replace

from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn
from beton.kernels.jit import jit


@jit
def _flip(images, target, drawn, parameters):
    count, height, width, channels = images.shape
    for n in range(count):
        mirrored = drawn[n, 0] < parameters[0]
        for y in range(height):
            for x in range(width):
                source = width - 1 - x if mirrored else x
                for c in range(channels):
                    target[n, y, x, c] = images[n, y, source, c]
    return target


class RandomHorizontalFlip(Drawn):
    """Mirror each image (N x H x W x C) left-right with probability `flip_prob`. `seed`: FFCV-SSL's."""

    kernel = _flip

    def __init__(self, flip_prob: float = 0.5, seed: int | None = None):
        super().__init__()
        self.flip_prob, self.seed = flip_prob, seed

    def parameters(self) -> tuple:
        """The probability."""
        return (float(self.flip_prob),)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """As before, in other memory."""
        query = AllocationQuery(previous_state.shape, previous_state.dtype)
        return replace(previous_state, jit_mode=True), query
