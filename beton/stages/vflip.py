"""vflip: mirror top-bottom."""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Pixels, check_number


@jit
def _flip(rows, keys, stage, p):
    count, height, width = rows.shape
    for n in range(count):
        if uniform(keys[n], stage, 0) < p:
            for y in range(height // 2):
                for x in range(width):
                    upper = rows[n, y, x]
                    rows[n, y, x] = rows[n, height - 1 - y, x]
                    rows[n, height - 1 - y, x] = upper


class VFlip(Pixels):
    """Mirror each image top-bottom with probability `p`."""

    any_pixels = True

    def __init__(self, p: float = 0.5):
        check_number("p", p, 0, 1)
        self.p = float(p)

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Flip images (n x H x W x C, C-contiguous, of any dtype) in place."""
        rows = images.view(np.uint8).reshape(*images.shape[:2], -1)  # bytes
        _flip(rows, keys, self.stage_index, self.p)

    def reference(self):
        """torchvision's RandomVerticalFlip."""
        from torchvision.transforms import RandomVerticalFlip

        return RandomVerticalFlip(self.p)


STAGE = VFlip
