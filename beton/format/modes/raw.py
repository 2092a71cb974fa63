"""raw: the pixels as they are."""

import numpy as np

from beton.format.modes.base import Mode


class Raw(Mode):
    """Rows of RGB pixels without gaps."""

    name, code, stock = "raw", 1, True

    def encode(self, pixels: np.ndarray, options) -> np.ndarray:
        """The pixels."""
        return np.ascontiguousarray(pixels).reshape(-1)

    def decode(self, payload: np.ndarray, height: int, width: int) -> np.ndarray:
        """The pixels. Raises ValueError."""
        if payload.size != 3 * height * width:
            raise ValueError("it is damaged")
        return payload.reshape(height, width, 3)

    def size(self, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """Three bytes a pixel."""
        return 3 * heights * widths


MODE = Raw()
