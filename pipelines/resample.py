"""How crops are resized: names of the filters, and sizes as torchvision rounds them.

The work itself is pipelines/kernels/resize.cpp: Pillow's antialiased filters and FFCV's (OpenCV's area).
"""

import numpy as np

BILINEAR, BICUBIC, AREA = 0, 1, 2
FILTERS = {"bilinear": BILINEAR, "bicubic": BICUBIC}


def short_side(heights: np.ndarray, widths: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (int64) of photos whose short side is resized to `side`, rounded as torchvision's Resize."""
    short = np.minimum(heights, widths)
    return (side * heights / short).astype(np.int64), (side * widths / short).astype(np.int64)
