"""bytes: any bytes, of any length, such as an identifier or a file of another kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Decoder, Encoded, Field


@dataclass(frozen=True)
class Bytes(Field):
    """Bytes; FFCV's BytesField. A batch of them is a list of N bytes objects."""

    type_names = {3: "bytes"}
    record = np.dtype([("ptr", "<u8"), ("size", "<u8")])
    pointer = "ptr"

    # What text and json do in their own way

    def to_bytes(self, value: Any) -> bytes:
        """A value as it is stored. Raises ValueError, or TypeError, with the reason where it cannot be."""
        if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 1:  # as FFCV takes them
            return value.tobytes()
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"{type(value).__name__} instead of bytes")
        return bytes(value)

    def of_bytes(self, content: bytes) -> Any:
        """The value. Raises ValueError with the reason where the content is damaged."""
        return content

    # What a field does

    def encode(self, value: Any, choice: Any = None) -> Encoded:
        """Bytes, a bytearray, or an array (uint8, one-dimensional)."""
        try:
            content = self.to_bytes(value)
        except (TypeError, ValueError, RecursionError) as error:
            return Encoded(error=str(error))
        return Encoded((len(content),), np.frombuffer(content, np.uint8))

    def stated_sizes(self, records: np.ndarray) -> np.ndarray:
        """Bytes of each value."""
        return records["size"]

    def value(self, record: Any, payload: bytes) -> Any:
        """The value. Raises ValueError with the reason where the payload is damaged."""
        return self.of_bytes(bytes(payload))

    def summary(self, records: np.ndarray, sizes: np.ndarray) -> dict[str, str]:
        """How long the values are."""
        return {"": f"{sizes.min()} to {sizes.max()} bytes, {sizes.sum() / 1e6:.1f} MB"}

    def decoder(self, column, mapped, stages, dtype, gpu) -> BytesDecoder:
        """No stages."""
        if stages is not None:
            kind = self.type_names[column.type_id]
            raise UserError(f"the field '{column.name}' holds {kind}, which takes no stages", f"leave out {stages!r}")
        return BytesDecoder(column, mapped)


class BytesDecoder(Decoder):
    """Reads values one by one."""

    dtype = np.dtype(object)

    def __init__(self, column, mapped):
        self._column, self._mapped = column, mapped

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Put the values of `samples` into target (object, n). Raises DamagedSample."""
        field = self._column.field
        for row, sample in enumerate(samples.tolist()):
            try:
                target[row] = field.of_bytes(self._mapped.payload(self._column, sample).tobytes())
            except ValueError as error:
                raise self._mapped.damaged(sample, self._column.name, str(error)) from None


FIELD = Bytes
