"""A value of a .beton as it lies there, for writing it to another one."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from beton.format.fields.base import Encoded, Field


@dataclass(frozen=True)
class Stored:
    """A value: the `record` and `payload` of a column whose field is `field`.

    `written_with`: the field with the options that it was written with, None where they are not known. `passed`: it
    may be what a source had given, unchanged.
    """

    field: Field
    record: Any
    payload: bytes | None
    written_with: Field | None = None
    passed: bool = False

    def encoded(self, field: Field, choice: Any) -> Encoded:
        """The value as another field stores it: as it lies here if that is the same one or changes nothing."""
        same = type(field) is type(self.field)
        if field is self.field or (same and field.keeps(self.written_with, self.record, self.payload, choice)):
            payload = None if self.payload is None else np.frombuffer(self.payload, np.uint8)
            return Encoded(self._values(), payload, passed=self.passed)
        try:
            value = self.field.given(self.record, self.payload)
        except ValueError as error:
            return Encoded(error=str(error))
        return field.encode(value, choice)

    def _values(self) -> tuple:
        """Those of the record but for the payload's address."""
        names, pointer = self.record.dtype.names, self.field.pointer
        if names is None:
            return (self.record.item(),) if pointer is None else ()
        return tuple(self.record[name].item() for name in names if name != pointer)
