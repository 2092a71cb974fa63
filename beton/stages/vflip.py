"""vflip: mirror top-bottom."""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Pixels, check_number


@jit
def _flip(images, keys, stage, p):
    count, height, width, _ = images.shape
    for n in range(count):
        if uniform(keys[n], stage, 0) < p:
            for y in range(height // 2):
                for x in range(width):
                    for c in range(3):
                        upper = images[n, y, x, c]
                        images[n, y, x, c] = images[n, height - 1 - y, x, c]
                        images[n, height - 1 - y, x, c] = upper


class VFlip(Pixels):
    """Mirror each image top-bottom with probability `p`."""

    def __init__(self, p: float = 0.5):
        check_number("p", p, 0, 1)
        self.p = float(p)

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Flip images (uint8, n x H x W x 3) in place."""
        _flip(images, keys, self.stage_index, self.p)

    def reference(self):
        """torchvision's RandomVerticalFlip."""
        from torchvision.transforms import RandomVerticalFlip

        return RandomVerticalFlip(self.p)


STAGE = VFlip
