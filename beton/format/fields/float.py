"""float: a number of 64 bits, such as the target of a regression."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Decoder, Encoded, Field

_AS = {"float64": np.float64, "float32": np.float32}


@dataclass(frozen=True)
class Float(Field):
    """Numbers of 64 bits, NaN and the infinities too; FFCV's FloatField.

    A batch of them is float64, N; float32 where the Loader is given y="float32" for the field `y`.
    """

    type_names = {0: "float"}
    record = np.dtype("<f8")

    def encode(self, value: Any, choice: Any = None) -> Encoded:
        """Python's and NumPy's numbers, and tensors of one."""
        single = isinstance(value, (numbers.Real, np.bool_)) or (
            hasattr(value, "__float__") and getattr(value, "shape", None) == ()
        )
        try:
            return Encoded((float(value),)) if single else Encoded(error=f"{value!r} is not a number")
        except (TypeError, ValueError, OverflowError) as error:
            return Encoded(error=f"{value!r} is not a number of 64 bits ({error})")

    def value(self, record: Any, payload: bytes | None) -> float:
        """The number."""
        return float(record)

    def summary(self, records: np.ndarray, sizes: np.ndarray | None) -> dict[str, str]:
        """The range."""
        return {"": f"{records.min():g} to {records.max():g}"}

    def decoder(self, column, mapped, stages, dtype, gpu) -> FloatDecoder:
        """Numbers take no stages but their type."""
        if stages is not None and stages not in _AS:
            what = f"the field '{column.name}' holds numbers, which take no stages"
            raise UserError(what, f"leave out {stages!r}, or give {column.name}='float32'")
        return FloatDecoder(column.records, _AS[stages or "float64"])


class FloatDecoder(Decoder):
    """Copies numbers."""

    def __init__(self, numbers: np.ndarray, dtype: type):
        self._numbers, self.dtype = numbers.astype(dtype), np.dtype(dtype)

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Copy the numbers of `samples` into target (n)."""
        np.take(self._numbers, samples, out=target)


FIELD = Float
