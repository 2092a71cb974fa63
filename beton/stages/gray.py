"""gray: the colours taken out, three equal channels left."""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Pixels, check_number


@jit
def luma(red, green, blue):
    """Brightness of a pixel as PIL's convert("L") has it: ITU-R 601-2 in 16 bits of fraction, rounded."""
    return np.uint8((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16)


@jit
def gray_image(image):
    """Give each pixel of an image (uint8, H x W x 3) its brightness in all channels, in place."""
    height, width, _ = image.shape
    for y in range(height):
        for x in range(width):
            value = luma(image[y, x, 0], image[y, x, 1], image[y, x, 2])
            for c in range(3):
                image[y, x, c] = value


@jit
def _gray(images, keys, stage, p):
    for n in range(len(images)):
        if uniform(keys[n], stage, 0) < p:
            gray_image(images[n])


class Gray(Pixels):
    """Make each image grey with probability `p`."""

    replaces = ("RandomGrayscale", "Grayscale", "ToGray")
    keeps_places = True

    def __init__(self, p: float = 1.0):
        check_number("p", p, 0, 1)
        self.p = float(p)

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Make images (uint8, n x H x W x 3) grey in place."""
        _gray(images, keys, self.stage_index, self.p)

    def reference(self):
        """torchvision's RandomGrayscale, which keeps three channels."""
        from torchvision.transforms import RandomGrayscale

        return RandomGrayscale(self.p)


STAGE = Gray
