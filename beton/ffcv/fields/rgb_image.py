"""Images of three channels of 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from beton.ffcv.fields.base import ARG_TYPE, Field, no_arguments
from beton.ffcv.fields.decoders import (
    CenterCropRGBImageDecoder,
    RandomResizedCropRGBImageDecoder,
    ResizedCropRGBImageDecoder,
    SimpleRGBImageDecoder,
    get_center_crop,
    get_random_crop,
)
from beton.format.fields.image import Image
from beton.format.modes import MODES

__all__ = [
    "ARG_TYPE",
    "IMAGE_MODES",
    "CenterCropRGBImageDecoder",
    "RGBImageField",
    "RandomResizedCropRGBImageDecoder",
    "ResizedCropRGBImageDecoder",
    "SimpleRGBImageDecoder",
    "encode_jpeg",
    "get_center_crop",
    "get_random_crop",
]
IMAGE_MODES = {"jpg": 0, "raw": 1}


def encode_jpeg(numpy_image: np.ndarray, quality: int) -> np.ndarray:
    """The JPEG (uint8) of pixels (uint8, H x W x 3, RGB)."""
    pixels = np.ascontiguousarray(numpy_image[..., ::-1])  # our encoder takes BGR
    return MODES.get("jpg").encode(pixels, Image(write_mode="jpg", jpeg_quality=int(quality)))


class RGBImageField(Field):
    """Images: PIL images, pixels (uint8, H x W x 3, RGB), or the bytes of image files.

    `write_mode`: 'raw' pixels, 'jpg', 'smart' (JPEG where the pixels take more than `smart_threshold` bytes), or
    'proportion' (JPEG for a share of `compress_probability`). `max_resolution`: longest side in pixels.
    `jpeg_quality`: 1 to 100.
    """

    def __init__(
        self,
        write_mode: str = "raw",
        max_resolution: int | None = None,
        smart_threshold: int | None = None,
        jpeg_quality: int = 90,
        compress_probability: float = 0.5,
    ):
        self.write_mode, self.max_resolution, self.smart_threshold = write_mode, max_resolution, smart_threshold
        self.jpeg_quality = int(jpeg_quality)
        self.proportion = 0.5 if compress_probability is None else compress_probability
        self.stored_as  # noqa: B018  are the options good?

    @property
    def stored_as(self) -> Image:
        """The library's field with these options. Raises UserError."""
        return Image(self.write_mode, self.max_resolution, self.proportion, self.jpeg_quality, self.smart_threshold)

    @property
    def metadata_type(self) -> np.dtype:
        """Mode, width, height and where the payload lies."""
        return Image.record

    @staticmethod
    def from_binary(binary: np.ndarray) -> Field:
        """See Field."""
        return RGBImageField()

    def to_binary(self) -> Any:
        """See Field."""
        return no_arguments()

    def encode(self, destination: np.ndarray, field: Any, malloc: Callable) -> None:
        """See Field. With 'proportion' NumPy's generator draws which are JPEGs."""
        choice = {"smart": None}.get(self.write_mode, self.write_mode)
        if choice == "proportion":
            choice = "jpg" if np.random.rand() < self.proportion else "raw"
        encoded = self.stored_as.encode(field, choice)
        if encoded.error:
            raise ValueError(encoded.error)
        destination["mode"], destination["width"], destination["height"] = encoded.values
        destination["data_ptr"], memory = malloc(encoded.payload.nbytes)
        memory[:] = encoded.payload

    def get_decoder_class(self) -> type:
        """See Field."""
        return SimpleRGBImageDecoder
