"""int: a whole number of 64 bits, such as the number of a class."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Decoder, Encoded, Field


@dataclass(frozen=True)
class Int(Field):
    """Whole numbers from -2**63 to 2**63 - 1; a batch of them is int64, N."""

    type_names = {1: "int"}
    record = np.dtype("<i8")

    def encode(self, value: Any, choice: Any = None) -> Encoded:
        """Python's and NumPy's integers, and tensors of one; True is 1, False is 0."""
        try:
            number = int(value) if isinstance(value, np.bool_) else operator.index(value)
        except TypeError:
            return Encoded(error=f"{value!r} is not a whole number")
        if not -(2**63) <= number < 2**63:
            return Encoded(error=f"{number} has more than 64 bits")
        return Encoded((number,))

    def value(self, record: Any, payload: bytes | None) -> int:
        """The number."""
        return int(record)

    def decoder(self, column, mapped, stages, dtype, gpu) -> IntDecoder:
        """Numbers take no stages."""
        if stages is not None:
            raise UserError(f"the field '{column.name}' holds numbers, which take no stages", f"leave out '{stages}'")
        return IntDecoder(column.records)


class IntDecoder(Decoder):
    """Copies numbers."""

    dtype = np.dtype(np.int64)

    def __init__(self, numbers: np.ndarray):
        self._numbers = numbers.astype(np.int64, copy=False)

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Copy the numbers of `samples` into target (int64, n)."""
        np.take(self._numbers, samples, out=target)


FIELD = Int
