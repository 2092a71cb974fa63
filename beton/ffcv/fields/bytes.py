"""Bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from beton.ffcv.fields.base import ARG_TYPE, Field, no_arguments
from beton.ffcv.fields.decoders import BytesDecoder

__all__ = ["ARG_TYPE", "BytesDecoder", "BytesField", "as_bytes"]


def as_bytes(value: Any) -> np.ndarray:
    """A value as uint8, one-dimensional: an array's numbers (taken for bytes as FFCV does it), or bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return np.frombuffer(value, np.uint8)
    return np.asarray(value).reshape(-1).astype(np.uint8, copy=False)


class BytesField(Field):
    """Bytes of any number, given as an array (uint8, one-dimensional), or bytes."""

    @property
    def metadata_type(self) -> np.dtype:
        """Where they lie, and how many."""
        return np.dtype([("ptr", "<u8"), ("size", "<u8")])

    @staticmethod
    def from_binary(binary: np.ndarray) -> Field:
        """See Field."""
        return BytesField()

    def to_binary(self) -> Any:
        """See Field."""
        return no_arguments()

    def encode(self, destination: np.ndarray, field: Any, malloc: Callable) -> None:
        """See Field."""
        content = as_bytes(field)
        destination["ptr"], memory = malloc(content.size)
        memory[:] = content
        destination["size"] = content.size

    def get_decoder_class(self) -> type:
        """See Field."""
        return BytesDecoder
