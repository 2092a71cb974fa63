"""The crops of FFCV's decoders as stages."""

from __future__ import annotations

import numpy as np

from beton.stages.base import Crop, check_number, check_size, side_by_side
from beton.stages.filters import AREA


class Whole(Crop):
    """All of each photo; they have one size."""

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The whole (see Crop)."""
        return side_by_side(len(keys), 0, 0, heights, widths)

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """As it is (see Crop)."""
        return side_by_side(len(keys), self.height, self.width, 0, 0, AREA)


class CentreSquare(Crop):
    """The centred square of `ratio` times the short side, resized to `size`, (height, width)."""

    def __init__(self, size: tuple[int, int], ratio: float):
        self.height, self.width = check_size(size)
        check_number("ratio", ratio, 0.001, 1)
        self.ratio = float(ratio)

    def boxes(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """See Crop."""
        sides = np.maximum(1, (self.ratio * np.minimum(heights, widths)).astype(np.int64))
        return side_by_side(len(keys), (heights - sides) // 2, (widths - sides) // 2, sides, sides)

    def windows(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """See Crop."""
        return side_by_side(len(keys), self.height, self.width, 0, 0, AREA)
