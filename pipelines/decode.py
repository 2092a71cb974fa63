"""Photo files of any common kind to 8-bit RGB, the same for the writer and for the standard loader."""

import io
import struct
import warnings

import cv2
import numpy as np
from PIL import Image

from pipelines import jpeg

# What Pillow raises for files that are damaged, cut off, too large or no images at all.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, Image.DecompressionBombError)


def to_rgb(data: bytes) -> Image.Image:
    """Decode an image file (bytes) to a PIL image of mode RGB; raises one of UNREADABLE.

    Grey becomes three equal channels, transparency is dropped, CMYK and palettes are converted,
    16-bit values keep their upper 8 bits. EXIF rotation is left alone, as torchvision leaves it.
    """
    with warnings.catch_warnings():
        # A damaged EXIF block does not harm the pixels
        warnings.simplefilter("ignore", UserWarning)
        image = Image.open(io.BytesIO(data))
        image.load()
    return _converted(image)


def to_pixels(data: bytes, bgr: bool = False) -> np.ndarray:
    """The pixels of to_rgb (uint8, H x W x 3), in the other order of channels if asked for; JPEGs take less time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        image = Image.open(io.BytesIO(data))
        if image.format == "JPEG" and image.mode == "RGB":
            pixels = jpeg.decode(data, image.height, image.width, bgr)
            if pixels is not None:
                return pixels
        image.load()
    pixels = np.asarray(_converted(image))
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if bgr else pixels


def _converted(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # 16-bit grey; Pillow's own conversion would clip everything above 255
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(grey)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
