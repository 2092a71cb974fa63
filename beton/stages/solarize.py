"""solarize: the values from a threshold upwards inverted."""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Pixels, check_number


@jit
def solarize_image(image, threshold):
    """Replace each value v >= threshold of an image (uint8, H x W x 3) by 255 - v, in place."""
    values = image.reshape(-1)
    for i in range(len(values)):
        if values[i] >= threshold:
            values[i] = 255 - values[i]


@jit
def _solarize(images, keys, stage, threshold, p):
    for n in range(len(images)):
        if uniform(keys[n], stage, 0) < p:
            solarize_image(images[n], threshold)


class Solarize(Pixels):
    """Invert the values from `threshold` upwards (256: none), in each image with probability `p`."""

    replaces = ("RandomSolarize", "Solarize")
    keeps_places = True

    def __init__(self, threshold: int = 128, p: float = 1.0):
        check_number("threshold", threshold, 0, 256, whole=True)
        check_number("p", p, 0, 1)
        self.threshold, self.p = threshold, float(p)

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Solarize images (uint8, n x H x W x 3) in place."""
        _solarize(images, keys, self.stage_index, self.threshold, self.p)

    def reference(self):
        """torchvision's RandomSolarize: PIL's ImageOps.solarize."""
        from torchvision.transforms import RandomSolarize

        return RandomSolarize(self.threshold, self.p)


STAGE = Solarize
