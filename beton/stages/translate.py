"""translate: move the image by a few pixels, as FFCV's RandomTranslate."""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Move, check_colour, check_number


@jit
def _moves(keys, stage, padding):
    moves = np.empty((len(keys), 2), np.int64)
    for n in range(len(keys)):
        for axis in range(2):
            moves[n, axis] = int(uniform(keys[n], stage, axis) * (2 * padding + 1)) - padding
    return moves


class Translate(Move):
    """Move each image by up to `padding` pixels up or down and left or right, evenly drawn.

    What becomes free gets the colour `fill`: red, green and blue from 0 to 255, or one number for all. The same as to
    pad the image with `padding` pixels of that colour and to cut out a part of its size.
    """

    def __init__(self, padding: int, fill: int | tuple[int, int, int] = 0):
        check_number("padding", padding, 0, 16384, whole=True)
        self.padding, self.fill = padding, check_colour("fill", fill)

    def moves(self, keys: np.ndarray) -> np.ndarray:
        """By how many pixels each image is moved (int64, n x 2: down, right)."""
        return _moves(keys, self.stage_index, self.padding)

    def reference(self):
        """torchvision's RandomCrop of the padded image."""
        from torchvision.transforms import RandomCrop

        def crop(image):
            size = (image.height, image.width)
            return RandomCrop(size, padding=self.padding, fill=tuple(self.fill))(image)

        return crop


STAGE = Translate
