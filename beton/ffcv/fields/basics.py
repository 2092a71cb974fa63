"""Numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from beton.ffcv.fields.base import ARG_TYPE, Field, no_arguments
from beton.ffcv.fields.decoders import BasicDecoder, FloatDecoder, IntDecoder

__all__ = ["ARG_TYPE", "BasicDecoder", "FloatDecoder", "FloatField", "IntDecoder", "IntField"]


class FloatField(Field):
    """Numbers (float64)."""

    @property
    def metadata_type(self) -> np.dtype:
        """The number itself."""
        return np.dtype("<f8")

    @staticmethod
    def from_binary(binary: np.ndarray) -> Field:
        """See Field."""
        return FloatField()

    def to_binary(self) -> Any:
        """See Field."""
        return no_arguments()

    def encode(self, destination: np.ndarray, field: Any, malloc: Callable) -> None:
        """See Field."""
        destination[0] = field

    def get_decoder_class(self) -> type:
        """See Field."""
        return FloatDecoder


class IntField(Field):
    """Whole numbers (int64)."""

    @property
    def metadata_type(self) -> np.dtype:
        """The number itself."""
        return np.dtype("<i8")

    @staticmethod
    def from_binary(binary: np.ndarray) -> Field:
        """See Field."""
        return IntField()

    def to_binary(self) -> Any:
        """See Field."""
        return no_arguments()

    def encode(self, destination: np.ndarray, field: Any, malloc: Callable) -> None:
        """See Field."""
        destination[0] = field

    def get_decoder_class(self) -> type:
        """See Field."""
        return IntDecoder
