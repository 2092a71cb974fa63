"""array: a NumPy array, such as boxes, an embedding, or an image of other channels than red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from beton.format.fields._array import Numbers
from beton.format.fields.base import Decoder, Encoded


@dataclass(frozen=True)
class Array(Numbers):
    """Arrays of `dtype` (NumPy's, or its name) and `shape`, of which a side that is None varies; FFCV's NDArrayField.

    A batch of them is a tensor, N x shape. Where the shape varies, it is a list of N tensors, or with x="pad" for the
    field `x` the named tuple (values, lengths) of a tensor that is filled up to the longest of the batch (with 0, or
    what "pad(-1)" says), and how long each was (int64: N, or N x the sides that vary). Arrays of a dtype that torch
    lacks, such as text and dates, are a list of N arrays.

    As images, H x W or H x W x C of uint8, uint16 or float32, they take stages: x="center(64)|flip|normalize(mean=0.5,
    std=0.25)" gives N x C x H x W in channels_last memory format. Normalize takes a number for each channel, or one for
    all, of values scaled to 0..1 by 255 (uint8) or 65535 (uint16), of float32 as they are.
    """

    type_names = {4: "array", 8: "array"}  # FFCV knows the first

    def encode(self, value: Any, choice: Any = None) -> Encoded:
        """Arrays of exactly the dtype, of any memory layout."""
        if not isinstance(value, (np.ndarray, np.generic)):
            return Encoded(error=f"{type(value).__name__} instead of an array")
        try:
            name = self._dtype_name(value.dtype)
        except Exception as error:  # noqa: BLE001  a dtype that cannot be stored
            return Encoded(error=str(error))
        return self._encoded(np.asarray(value), name)

    def value(self, record: Any, payload: bytes) -> np.ndarray:
        """The array. Raises ValueError with the reason where the payload is damaged."""
        return self.array_of(record, payload)

    def decoder(self, column, mapped, stages, dtype, gpu) -> Decoder:
        """As it is stored, or through stages as an image."""
        if stages is None or stages.strip().startswith("pad"):
            return super().decoder(column, mapped, stages, dtype, gpu)
        from beton.format.fields._array_image_decoder import ArrayImageDecoder

        return ArrayImageDecoder(column, mapped, stages, dtype)


FIELD = Array
