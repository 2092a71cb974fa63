"""What FFCV's fields have in common, and users' own must have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from beton.ffcv.pipeline.operation import Operation

ARG_TYPE = np.dtype([("", "<u1", 1024)])  # what the file's descriptor of a field says besides its type


class Field(ABC):
    """A column of a file.

    encode() writes the record of one sample and asks `malloc` for the bytes that do not fit into it; the class that
    get_decoder_class() gives reads them.
    """

    @property
    @abstractmethod
    def metadata_type(self) -> np.dtype:
        """The dtype of a sample's record."""
        raise NotImplementedError

    @staticmethod
    @abstractmethod
    def from_binary(binary: np.ndarray) -> Field:
        """The field whose to_binary() has made these 1024 bytes (uint8)."""
        raise NotImplementedError

    @abstractmethod
    def to_binary(self) -> Any:
        """What from_binary() needs to know, of the dtype ARG_TYPE."""
        raise NotImplementedError

    @abstractmethod
    def encode(self, destination: np.ndarray, field: Any, malloc: Callable) -> None:
        """Store the value `field`: in `destination`, an array of one record, and in memory that `malloc(size)` gives:
        (address in the file, bytes to be filled)."""
        raise NotImplementedError

    @abstractmethod
    def get_decoder_class(self) -> type[Operation]:
        """The decoder for pipelines that name none."""
        raise NotImplementedError


def no_arguments() -> Any:
    """What to_binary() gives for a field that has nothing to say."""
    return np.zeros(1, dtype=ARG_TYPE)[0]
