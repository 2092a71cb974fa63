"""center(size): centre crop for validation."""

import numpy as np

from beton.kernels.jit import jit
from beton.stages.base import Crop, check_choice, check_number, check_size, side_by_side
from beton.stages.filters import AREA, FILTERS, ResizeToCover, covering


@jit
def _boxes(heights, widths, height, width, ratio):
    boxes = np.empty((len(heights), 4), np.int64)
    for n in range(len(heights)):
        upright = heights[n] * width >= widths[n] * height  # the width decides
        rows = max(1, int(ratio * (widths[n] * height / width if upright else heights[n])))
        columns = max(1, int(ratio * (widths[n] if upright else heights[n] * width / height)))
        boxes[n] = (heights[n] - rows) // 2, (widths[n] - columns) // 2, rows, columns
    return boxes


class Center(Crop):
    """Cut out the centre of the photo and resize it.

    `size`: of the result in pixels, one side of a square or (height, width). `ratio`: the crop's share of the largest
    centred rectangle of that shape (for squares: of the short side); 224/256 is the custom of ImageNet and the
    default of ffcv-imagenet. `interpolation`: 'area' cuts and resizes as FFCV does; 'bilinear' and
    'bicubic' resize the photo to size / ratio first (squares: its short side) and cut then, as torchvision does.
    """

    replaces = ("CenterCrop",)
    draws = False

    def __init__(self, size: int | tuple[int, int], ratio: float = 224 / 256, interpolation: str = "area"):
        self.height, self.width = check_size(size)
        check_number("ratio", ratio, 0.01, 1)
        check_choice("interpolation", interpolation, ("area", *FILTERS))
        self.ratio, self.interpolation = float(ratio), interpolation
        self._covered = round(self.height / self.ratio), round(self.width / self.ratio)

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Rectangles (int64, n x 4: top, left, height, width) for photos of these sizes (int64)."""
        if self.interpolation != "area":
            return side_by_side(len(keys), 0, 0, heights, widths)
        return _boxes(heights, widths, self.height, self.width, self.ratio)

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The middle of each photo resized (see Crop.windows), rounded as torchvision's CenterCrop does."""
        if self.interpolation == "area":
            return side_by_side(len(keys), self.height, self.width, 0, 0, AREA)
        rows, columns = covering(heights, widths, *self._covered)
        top = np.rint((rows - self.height) / 2).astype(np.int64)
        left = np.rint((columns - self.width) / 2).astype(np.int64)
        return side_by_side(len(keys), rows, columns, top, left, FILTERS[self.interpolation])

    def reference(self):
        """torchvision's Resize to size / ratio (PIL; for area bilinear), then CenterCrop."""
        from torchvision.transforms import CenterCrop, Compose

        mode = "bilinear" if self.interpolation == "area" else self.interpolation
        return Compose([ResizeToCover(*self._covered, mode), CenterCrop((self.height, self.width))])


STAGE = Center
