"""jpg: JPEG files, with restart markers so that a part can be decoded alone."""

import numpy as np

from beton.format import jpeg
from beton.format.modes.base import Mode

_LONGEST_SIDE = 65500  # libjpeg's limit


class Jpg(Mode):
    """Baseline JPEG, 4:2:0, as OpenCV encodes it; every JPEG decoder reads it."""

    name, code, stock, bgr = "jpg", 0, True, True

    def encode(self, pixels: np.ndarray, options) -> np.ndarray:
        """Encode pixels (BGR) with options.jpeg_quality and, if asked for, options.restart_markers."""
        import cv2

        height, width = pixels.shape[:2]
        if max(height, width) > _LONGEST_SIDE:
            raise ValueError(f"a side is longer than {_LONGEST_SIDE} pixels, the most that a JPEG can have")
        how = [cv2.IMWRITE_JPEG_QUALITY, int(options.jpeg_quality)]
        if options.restart_markers:
            how += [cv2.IMWRITE_JPEG_RST_INTERVAL, jpeg.restart_interval(width)]
        good, payload = cv2.imencode(".jpg", pixels, how)
        if not good:
            raise ValueError("it cannot be encoded as JPEG")
        return payload.reshape(-1)

    def decode(self, payload: np.ndarray, height: int, width: int) -> np.ndarray:
        """Decode by the kernels; by Pillow what is not a baseline JPEG. Raises ValueError."""
        from beton import kernels
        from beton.format.photo_files import decode_whole

        pixels = kernels.decode(payload, self.code, height, width)
        return decode_whole(payload, height, width) if pixels is None else pixels


MODE = Jpg()
