"""src(size): simple random crop, of a photo whose short side is resized first; as DeiT III augments ImageNet-21k.

Touvron, Cord and Jegou, "DeiT III: Revenge of the ViT", 2022, and the augmentation of their code.
"""

import numpy as np

from pipelines.draws import uniform
from pipelines.jit import jit
from pipelines.resample import FILTERS, short_side
from pipelines.stages import CROP, Stage, check_choice, check_number


@jit
def _offsets(keys, place, rows, columns, size, padding):
    """Where the crops begin in the resized photos (int64, n x 2), evenly from -padding on."""
    offsets = np.empty((len(keys), 2), np.int64)
    for n in range(len(keys)):
        offsets[n, 0] = int(uniform(keys[n], place, 0) * (rows[n] + 2 * padding - size + 1)) - padding
        offsets[n, 1] = int(uniform(keys[n], place, 1) * (columns[n] + 2 * padding - size + 1)) - padding
    return offsets


class Src(Stage):
    """Resize the short side to `size`, mirror `padding` pixels outwards at each edge, cut out size x size at random.

    `interpolation`: 'bilinear' or 'bicubic', as Pillow resizes.
    """

    kind = CROP

    def __init__(self, size: int, padding: int = 4, interpolation: str = "bicubic"):
        check_number("size", size, 1, 16384, whole=True)
        check_number("padding", padding, 0, 16384, whole=True)
        check_choice("interpolation", interpolation, FILTERS)
        self.size, self.padding, self.interpolation = size, padding, interpolation

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The whole of each photo (int64, n x 4: top, left, height, width)."""
        return np.stack(np.broadcast_arrays(0, 0, heights, widths), axis=1)

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Random parts of the resized photos (see Stage.windows)."""
        rows, columns = short_side(heights, widths, self.size)
        top, left = _offsets(keys, self.place, rows, columns, self.size, self.padding).T
        return np.stack(np.broadcast_arrays(rows, columns, top, left, FILTERS[self.interpolation]), axis=1)

    def reference(self):
        """torchvision's Resize (PIL), then RandomCrop with padding."""
        from torchvision.transforms import Compose, InterpolationMode, RandomCrop, Resize

        resize = Resize(self.size, InterpolationMode(self.interpolation))
        return Compose([resize, RandomCrop(self.size, padding=self.padding, padding_mode="reflect")])


STAGE = Src
