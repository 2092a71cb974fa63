"""Photo files of any common kind to 8-bit RGB, the same for the writer and for the standard loader."""

import io
import struct
import warnings

import numpy as np
from PIL import Image

from beton import kernels
from beton.format import jpeg

# What Pillow raises for files that are damaged, cut off, too large or no images at all.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, Image.DecompressionBombError)

_ORIENTATION = 0x0112
# What brings pixels of each EXIF orientation upright (CIPA DC-008, 4.6.4)
_TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p.swapaxes(0, 1)[::-1],
}

_NO_JPEG, _OTHER_SIZE, _DAMAGED = (kernels.CODES[code] for code in (1, 2, 3))
_LARGEST = 65500**2
_START_OF_SCAN, _MOST_SCANS = b"\xff\xda", 500  # a progressive JPEG of more is made to take hours


def to_rgb(data: bytes) -> Image.Image:
    """Decode an image file (bytes) to a PIL image of mode RGB; raises one of UNREADABLE.

    Grey becomes three equal channels, transparency is dropped, CMYK and palettes are converted,
    16-bit values keep their upper 8 bits. EXIF orientation is left alone, as torchvision leaves it.
    """
    with warnings.catch_warnings():
        # A damaged EXIF block does not harm the pixels
        warnings.simplefilter("ignore", UserWarning)
        image = Image.open(io.BytesIO(data))
        image.load()
    return as_rgb(image)


def to_pixels(data: bytes, bgr: bool = False) -> np.ndarray:
    """The pixels of to_rgb (uint8, H x W x 3), in the other order of channels if asked for; JPEGs take less time."""
    height, width = (jpeg.baseline_size(data) if data.startswith(b"\xff\xd8\xff") else None) or (0, 0)
    if 0 < height * width <= (Image.MAX_IMAGE_PIXELS or _LARGEST):  # Pillow warns of larger ones, and refuses some
        pixels = kernels.decode_jpeg(data, height, width, bgr)
        if pixels is not None:
            return pixels
    pixels = np.asarray(to_rgb(data))
    return np.ascontiguousarray(pixels[..., ::-1]) if bgr else pixels


def orientation(photo: bytes | Image.Image) -> int:
    """The EXIF orientation of an image file or a PIL image: 2 to 8 where a viewer turns or mirrors it, else 1."""
    if isinstance(photo, bytes) and photo.startswith(b"\xff\xd8") and not jpeg.has_exif(photo):
        return 1  # as most JPEGs: nothing to parse
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            image = Image.open(io.BytesIO(photo)) if isinstance(photo, bytes) else photo
            found = image.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:
        return 1
    return found if found in _TURNS else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H x W x 3) turned and mirrored as an EXIF orientation says; a view."""
    return _TURNS[orientation](pixels)


def decode_whole(payload: np.ndarray | bytes, height: int, width: int) -> np.ndarray:
    """Decode a stored JPEG of any kind to uint8, height x width x 3, RGB: what the kernels leave to Python.

    Raises ValueError with the reason, one of kernels.CODES: it is no JPEG, has another size, or is damaged.
    """
    data = bytes(payload)
    if not data.startswith(b"\xff\xd8\xff"):
        raise ValueError(_NO_JPEG)
    if data.count(_START_OF_SCAN) > _MOST_SCANS:
        raise ValueError(_DAMAGED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=("JPEG",))
            if image.size == (width, height):
                image.load()
                return np.asarray(as_rgb(image))
    except UNREADABLE:
        raise ValueError(_DAMAGED) from None
    raise ValueError(_OTHER_SIZE)


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as one of mode RGB, as to_rgb says."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # 16-bit grey; Pillow's own conversion would clip everything above 255
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        image = Image.fromarray(grey)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
