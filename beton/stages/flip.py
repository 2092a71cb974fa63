"""flip: mirror left-right."""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Mirror, check_number


@jit
def _mirrors(keys, stage, p):
    chosen = np.empty(len(keys), np.bool_)
    for n in range(len(keys)):
        chosen[n] = uniform(keys[n], stage, 0) < p
    return chosen


class Flip(Mirror):
    """Mirror each image left-right with probability `p`."""

    replaces = ("RandomHorizontalFlip", "HorizontalFlip")

    def __init__(self, p: float = 0.5):
        check_number("p", p, 0, 1)
        self.p = float(p)

    def mirrors(self, keys: np.ndarray) -> np.ndarray:
        """Which images are flipped (bool, n)."""
        return _mirrors(keys, self.stage_index, self.p)

    def reference(self):
        """torchvision's RandomHorizontalFlip."""
        from torchvision.transforms import RandomHorizontalFlip

        return RandomHorizontalFlip(self.p)


STAGE = Flip
