"""blocks: 4 x 8 pixels a block, a quarter of raw's bytes; a crop of them is decoded faster than one of raw is read."""

import numpy as np

from beton.format.modes.base import Mode


class Blocks(Mode):
    """Three planes of blocks (beton/kernels/blocks.h has the layout). FFCV cannot read them."""

    name, code = "blocks", 2

    def encode(self, pixels: np.ndarray, options) -> np.ndarray:
        """Encoded by the kernels."""
        from beton import kernels

        return kernels.encode_blocks(pixels)

    def decode(self, payload: np.ndarray, height: int, width: int) -> np.ndarray:
        """Decoded by the kernels. Raises ValueError."""
        from beton import kernels

        return kernels.decode(payload, self.code, height, width)

    def size(self, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
        """About 3/4 byte a pixel."""

        def plane(height, width):
            rows, columns = -(-height // 4), -(-width // 8)
            return rows * (4 + (columns + 1) // 2 + 15 * columns)

        return plane(heights, widths) + 2 * plane((heights + 1) // 2, (widths + 1) // 2) + 32


MODE = Blocks()
