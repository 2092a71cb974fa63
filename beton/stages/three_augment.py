"""three_augment: one of gray, solarize and blur (3-Augment, of DeiT III)."""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Pixels
from beton.stages.blur import Blur, blur_image
from beton.stages.gray import Gray, gray_image
from beton.stages.solarize import Solarize, solarize_image

GRAY, SOLARIZE, BLUR = range(3)
_THRESHOLD, _SIGMA = 128, (0.1, 2.0)


@jit
def _draw(keys, stage, low, high):
    choices, sigmas = np.empty(len(keys), np.int64), np.empty(len(keys))
    for n in range(len(keys)):
        choices[n] = int(3 * uniform(keys[n], stage, 0))
        sigmas[n] = low + (high - low) * uniform(keys[n], stage, 1)
    return choices, sigmas


@jit
def _three_augment(images, choices, sigmas):
    for n in range(len(images)):
        if choices[n] == GRAY:
            gray_image(images[n])
        elif choices[n] == SOLARIZE:
            solarize_image(images[n], _THRESHOLD)
        else:
            blur_image(images[n], sigmas[n])


class ThreeAugment(Pixels):
    """Make each image grey, or solarize it, or blur it: one of the three, each as likely.

    As in the code of Touvron, Cord and Jégou, "DeiT III: Revenge of the ViT", 2022: solarized from
    128 upwards, blurred by a standard deviation from 0.1 to 2 pixels.
    """

    keeps_places = True

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each image the choice (GRAY, SOLARIZE or BLUR) and the standard deviation should it be BLUR."""
        return _draw(keys, self.stage_index, *_SIGMA)

    def apply(self, images: np.ndarray, keys: np.ndarray) -> None:
        """Change images (uint8, n x H x W x 3) in place."""
        _three_augment(images, *self.draw(keys))

    def reference(self):
        """A random choice of the references of the three (v2's, since v1's does not draw from torch)."""
        from torchvision.transforms.v2 import RandomChoice

        return RandomChoice([s.reference() for s in (Gray(), Solarize(_THRESHOLD), Blur(_SIGMA))])


STAGE = ThreeAugment
