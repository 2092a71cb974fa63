"""flip: mirror left-right."""

import numpy as np

from pipelines.draws import uniform
from pipelines.jit import jit
from pipelines.stages import Stage, check_number


@jit
def _flip(images, keys, place, p):
    count, height, width, _ = images.shape
    for n in range(count):
        if uniform(keys[n], place, 0) < p:
            for y in range(height):
                for x in range(width // 2):
                    for c in range(3):
                        left = images[n, y, x, c]
                        images[n, y, x, c] = images[n, y, width - 1 - x, c]
                        images[n, y, width - 1 - x, c] = left


@jit
def _mirrors(keys, place, p):
    chosen = np.empty(len(keys), np.bool_)
    for n in range(len(keys)):
        chosen[n] = uniform(keys[n], place, 0) < p
    return chosen


class Flip(Stage):
    """Mirror each image left-right with probability `p`."""

    def __init__(self, p: float = 0.5):
        check_number("p", p, 0, 1)
        self.p = float(p)

    def mirrors(self, keys: np.ndarray) -> np.ndarray:
        """Which images are flipped (bool, n)."""
        return _mirrors(keys, self.place, self.p)

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Flip images (uint8, n x H x W x 3) in place."""
        _flip(images, keys, self.place, self.p)

    def reference(self):
        """torchvision's RandomHorizontalFlip."""
        from torchvision.transforms import RandomHorizontalFlip

        return RandomHorizontalFlip(self.p)


STAGE = Flip
