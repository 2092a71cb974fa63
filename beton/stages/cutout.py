"""cutout: a square of one colour somewhere in the image, as FFCV's Cutout.

DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017. The square lies within
the image, as in FFCV; theirs may reach over its edge.
"""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Paint, check_colour, check_number


@jit
def _corners(keys, stage, height, width, size):
    corners = np.empty((len(keys), 2), np.int64)
    for n in range(len(keys)):
        corners[n, 0] = int(uniform(keys[n], stage, 0) * (height - size + 1))
        corners[n, 1] = int(uniform(keys[n], stage, 1) * (width - size + 1))
    return corners


@jit
def _paint(images, corners, size, colour):
    for n in range(len(corners)):
        top, left = corners[n]
        for y in range(top, top + size):
            for x in range(left, left + size):
                for c in range(3):
                    images[n, y, x, c] = colour[c]


class Cutout(Paint):
    """Give a square of `size` x `size` pixels the colour `fill`: red, green and blue from 0 to 255, or one for all."""

    replaces = ("CoarseDropout",)

    def __init__(self, size: int, fill: int | tuple[int, int, int] = 0):
        check_number("size", size, 1, 16384, whole=True)
        self.size, self.colour = size, check_colour("fill", fill)

    def corners(self, keys: np.ndarray, height: int, width: int) -> np.ndarray:
        """Where the squares begin in images of this size (int64, n x 2: top, left)."""
        return _corners(keys, self.stage_index, height, width, self.size)

    def check_images(self, height: int, width: int) -> None:
        """Raise ValueError when they are smaller than the square."""
        if self.size > min(height, width):
            raise ValueError(f"cutout({self.size}) is larger than the images of {height} x {width} pixels")

    def paint(self, images: np.ndarray, keys: np.ndarray, colour: np.ndarray) -> None:
        """Paint in images (n x H x W x 3) of any dtype."""
        _paint(images, self.corners(keys, *images.shape[1:3]), self.size, colour)

    def reference(self):
        """The same on a PIL image, with torch's generator."""
        import torch
        from PIL.Image import Image

        def cut(image: Image) -> Image:
            left, top = (int(torch.randint(side - self.size + 1, (1,))) for side in image.size)
            image = image.copy()
            image.paste(tuple(self.colour), (left, top, left + self.size, top + self.size))
            return image

        return cut


STAGE = Cutout
