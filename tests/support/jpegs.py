"""JPEGs of every kind, and with their segments changed."""

import cv2
import numpy as np
from PIL import Image

from tests.support.photos import draw, encoded

SAMPLINGS = {
    "444": ((1, 1), cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "422": ((1, 2), cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
    "440": ((2, 1), cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "420": ((2, 2), cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    "411": ((1, 4), cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "grey": ((1, 1), None),
}


def noisy(size, seed: int, noise: float) -> np.ndarray:
    """A photo with as much noise more."""
    rng = np.random.default_rng(seed)
    return (draw(seed, *size) + rng.normal(0, noise, (*size, 3))).clip(0, 255).astype(np.uint8)


def encode(photo, sampling="420", quality=90, optimize=False, restart=0, progressive=False) -> bytes:
    """By OpenCV, which takes the photo for BGR."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, int(optimize)]
    options += [cv2.IMWRITE_JPEG_RST_INTERVAL, restart, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    if sampling == "grey":
        photo = photo[..., 1]
    else:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling][1]]
    return cv2.imencode(".jpg", photo, options)[1].tobytes()


def pillow(photo, mode="RGB", **options) -> bytes:
    return encoded(Image.frombytes(mode, photo.shape[1::-1], photo.tobytes()), "JPEG", **options)


def with_marker(payload: bytes, marker: int, content: bytes) -> bytes:
    """The JPEG with one more segment at its beginning."""
    return payload[:2] + bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content + payload[2:]


def without(payload: bytes, marker: int) -> bytes:
    """The JPEG without the first header segment of this kind."""
    at = payload.index(bytes([0xFF, marker]))
    return payload[:at] + payload[at + 2 + int.from_bytes(payload[at + 2 : at + 4], "big") :]
