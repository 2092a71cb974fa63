"""src(size): simple random crop, of a photo that is resized first; as DeiT III augments ImageNet-21k.

Touvron, Cord and Jegou, "DeiT III: Revenge of the ViT", 2022, and the augmentation of their code.
"""

import numpy as np

from beton.kernels.jit import jit
from beton.rng import uniform
from beton.stages.base import Crop, check_choice, check_colour, check_number, check_size, side_by_side
from beton.stages.filters import FILTERS, ResizeToCover, covering


@jit
def _offsets(keys, stage, sides, size, padding, draw):
    """Where the crops begin along one axis of the resized photos (int64, n), evenly from -padding on."""
    offsets = np.empty(len(keys), np.int64)
    for n in range(len(keys)):
        offsets[n] = int(uniform(keys[n], stage, draw) * (sides[n] + 2 * padding - size + 1)) - padding
    return offsets


class Src(Crop):
    """Resize the photo so that it just covers `size`, pad it with `padding` pixels, cut out `size` at random.

    `size`: of the result in pixels, one side of a square (then the short side is resized to it) or (height, width).
    `padding`: pixels at each edge, of the colour `fill` (red, green and blue from 0 to 255, or one number for all), or
    None for the image's own, mirrored. `interpolation`: 'bilinear' or 'bicubic', as Pillow resizes.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        padding: int = 4,
        interpolation: str = "bicubic",
        fill: int | tuple[int, int, int] | None = None,
    ):
        self.height, self.width = check_size(size)
        check_number("padding", padding, 0, 16384, whole=True)
        check_choice("interpolation", interpolation, FILTERS)
        self.padding, self.interpolation = padding, interpolation
        self.fill = None if fill is None else check_colour("fill", fill)

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The whole of each photo (int64, n x 4: top, left, height, width)."""
        return side_by_side(len(keys), 0, 0, heights, widths)

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Random parts of the resized photos (see Crop.windows)."""
        rows, columns = covering(heights, widths, self.height, self.width)
        top = _offsets(keys, self.stage_index, rows, self.height, self.padding, 0)
        left = _offsets(keys, self.stage_index, columns, self.width, self.padding, 1)
        return side_by_side(len(keys), rows, columns, top, left, FILTERS[self.interpolation])

    def reference(self):
        """torchvision's Resize (PIL), then RandomCrop with padding."""
        from torchvision.transforms import Compose, RandomCrop

        resize = ResizeToCover(self.height, self.width, self.interpolation)
        size = (self.height, self.width)
        how = {"padding_mode": "reflect"} if self.fill is None else {"fill": self.fill}
        return Compose([resize, RandomCrop(size, padding=self.padding, **how)])


STAGE = Src
