"""center(size): centre crop for validation."""

import numpy as np

from pipelines.stages import CROP, Stage, check_number


class Center(Stage):
    """Cut out the centre square and resize it to size x size pixels.

    `size`: side of the result in pixels. `ratio`: side of the square / short side of the photo;
    224/256 is the custom of ImageNet and the default of ffcv-imagenet.
    """

    kind = CROP

    def __init__(self, size: int, ratio: float = 224 / 256):
        check_number("size", size, 1, 16384, whole=True)
        check_number("ratio", ratio, 0.01, 1)
        self.size, self.ratio = size, float(ratio)

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Rectangles (int64, n x 4: top, left, height, width) for photos of these sizes (int64)."""
        side = np.maximum(1, (self.ratio * np.minimum(heights, widths)).astype(np.int64))
        return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=1)

    def reference(self):
        """torchvision's Resize of the short side to size / ratio, then CenterCrop."""
        from torchvision.transforms import CenterCrop, Compose, Resize

        return Compose([Resize(round(self.size / self.ratio)), CenterCrop(self.size)])


STAGE = Center
