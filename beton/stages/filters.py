"""How crops are resized: names of the filters, and sizes as torchvision rounds them.

The work itself is beton/kernels/resize.cpp: Pillow's antialiased filters and FFCV's (OpenCV's area).
"""

import numpy as np

BILINEAR, BICUBIC, AREA = 0, 1, 2
FILTERS = {"bilinear": BILINEAR, "bicubic": BICUBIC}


def covering(heights: np.ndarray, widths: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (int64) to which photos are resized so that they just cover height x width pixels.

    One side has exactly that size, the other is cut off to whole pixels, as torchvision's Resize of the short side.
    """
    upright = heights * width >= widths * height  # the width decides
    rows = np.where(upright, width * heights / widths, height).astype(np.int64)
    columns = np.where(upright, width, height * widths / heights).astype(np.int64)
    return rows, columns


class ResizeToCover:
    """A transform of PIL images: resized to `covering` height x width, by torchvision's filter of this name."""

    def __init__(self, height: int, width: int, interpolation: str):
        self.height, self.width, self.interpolation = height, width, interpolation

    def __call__(self, image):
        """The resized PIL image."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.functional import resize

        sides = covering(np.array([image.height]), np.array([image.width]), self.height, self.width)
        return resize(image, [int(side[0]) for side in sides], InterpolationMode(self.interpolation))
