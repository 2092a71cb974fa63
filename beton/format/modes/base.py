"""What a storage mode is: how the pixels of one image lie in its payload."""

from typing import Any, ClassVar

import numpy as np


class Mode:
    """A mode. A file in this folder defines a subclass and names an instance of it MODE.

    `code` (0 to 255) is its number in the records; `stock` says whether FFCV 1.0.2 reads it; `bgr` that encode() takes
    the channels in that order. The kernels crop modes that a C++ file in beton/kernels registers without decoding
    the whole image; all others are decoded whole here.
    """

    name: ClassVar[str]
    code: ClassVar[int]
    stock: ClassVar[bool] = False
    bgr: ClassVar[bool] = False

    def encode(self, pixels: np.ndarray, options: Any) -> np.ndarray:
        """The payload (uint8) of an image (uint8, H x W x 3); `options` is the field Image. Raises ValueError."""
        raise NotImplementedError

    def decode(self, payload: np.ndarray, height: int, width: int) -> np.ndarray:
        """The image (uint8, H x W x 3, RGB) of a payload (uint8). Raises ValueError with the reason if damaged."""
        raise NotImplementedError

    def size(self, heights: np.ndarray, widths: np.ndarray) -> np.ndarray | None:
        """Bytes of the payloads of images of these sizes (int64); None where it depends on their content."""
        return None
