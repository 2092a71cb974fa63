"""center(size): centre crop for validation."""

import numpy as np

from pipelines.resample import AREA, FILTERS, short_side
from pipelines.stages import CROP, Stage, check_choice, check_number


class Center(Stage):
    """Cut out the centre square and resize it to size x size pixels.

    `size`: side of the result in pixels. `ratio`: side of the square / short side of the photo;
    224/256 is the custom of ImageNet and the default of ffcv-imagenet. `interpolation`: 'area' cuts and
    resizes as FFCV does; 'bilinear' and 'bicubic' resize the short side to size / ratio and cut then, as
    torchvision does.
    """

    kind = CROP

    def __init__(self, size: int, ratio: float = 224 / 256, interpolation: str = "area"):
        check_number("size", size, 1, 16384, whole=True)
        check_number("ratio", ratio, 0.01, 1)
        check_choice("interpolation", interpolation, ("area", *FILTERS))
        self.size, self.ratio, self.interpolation = size, float(ratio), interpolation
        self.short = round(self.size / self.ratio)  # the resized photo's short side

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Rectangles (int64, n x 4: top, left, height, width) for photos of these sizes (int64)."""
        if self.interpolation != "area":
            return np.stack(np.broadcast_arrays(0, 0, heights, widths), axis=1)
        side = np.maximum(1, (self.ratio * np.minimum(heights, widths)).astype(np.int64))
        return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=1)

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The middle of each photo resized (see Stage.windows), rounded as torchvision's CenterCrop does."""
        if self.interpolation == "area":
            return np.stack(np.broadcast_arrays(self.size, self.size, 0, 0, np.full(len(keys), AREA)), axis=1)
        rows, columns = short_side(heights, widths, self.short)
        top, left = (np.rint((sides - self.size) / 2).astype(np.int64) for sides in (rows, columns))
        return np.stack(np.broadcast_arrays(rows, columns, top, left, FILTERS[self.interpolation]), axis=1)

    def reference(self):
        """torchvision's Resize of the short side to size / ratio (PIL; for area bilinear), then CenterCrop."""
        from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

        mode = InterpolationMode("bilinear" if self.interpolation == "area" else self.interpolation)
        return Compose([Resize(self.short, mode), CenterCrop(self.size)])


STAGE = Center
