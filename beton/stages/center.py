"""center(size): centre crop for validation."""

import numpy as np

from beton.stages.base import Crop, check_choice, check_number, check_size
from beton.stages.filters import AREA, FILTERS, ResizeToCover, covering


class Center(Crop):
    """Cut out the centre of the photo and resize it.

    `size`: of the result in pixels, one side of a square or (height, width). `ratio`: the crop's share of the largest
    centred rectangle of that shape (for squares: of the short side); 224/256 is the custom of ImageNet and the
    default of ffcv-imagenet. `interpolation`: 'area' cuts and resizes as FFCV does; 'bilinear' and
    'bicubic' resize the photo to size / ratio first (squares: its short side) and cut then, as torchvision does.
    """

    def __init__(self, size: int | tuple[int, int], ratio: float = 224 / 256, interpolation: str = "area"):
        self.height, self.width = check_size(size)
        check_number("ratio", ratio, 0.01, 1)
        check_choice("interpolation", interpolation, ("area", *FILTERS))
        self.ratio, self.interpolation = float(ratio), interpolation
        self._covered = round(self.height / self.ratio), round(self.width / self.ratio)

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Rectangles (int64, n x 4: top, left, height, width) for photos of these sizes (int64)."""
        if self.interpolation != "area":
            return np.stack(np.broadcast_arrays(0, 0, heights, widths), axis=1)
        upright = heights * self.width >= widths * self.height  # the width decides
        rows = self.ratio * np.where(upright, widths * self.height / self.width, heights)
        columns = self.ratio * np.where(upright, widths, heights * self.width / self.height)
        rows, columns = (np.maximum(1, sides.astype(np.int64)) for sides in (rows, columns))
        return np.stack([(heights - rows) // 2, (widths - columns) // 2, rows, columns], axis=1)

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The middle of each photo resized (see Crop.windows), rounded as torchvision's CenterCrop does."""
        if self.interpolation == "area":
            return np.stack(np.broadcast_arrays(self.height, self.width, 0, 0, np.full(len(keys), AREA)), axis=1)
        rows, columns = covering(heights, widths, *self._covered)
        top = np.rint((rows - self.height) / 2).astype(np.int64)
        left = np.rint((columns - self.width) / 2).astype(np.int64)
        return np.stack(np.broadcast_arrays(rows, columns, top, left, FILTERS[self.interpolation]), axis=1)

    def reference(self):
        """torchvision's Resize to size / ratio (PIL; for area bilinear), then CenterCrop."""
        from torchvision.transforms import CenterCrop, Compose

        mode = "bilinear" if self.interpolation == "area" else self.interpolation
        return Compose([ResizeToCover(*self._covered, mode), CenterCrop((self.height, self.width))])


STAGE = Center
