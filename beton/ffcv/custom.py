"""Users' own fields as the library's: what their encode() stores, and records whose meaning is theirs alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Encoded, Field

# Where the memory of a sample seems to begin until it has its place in the file: no number that a record has else
_SEEMING = 0x5EED_BE70_0000_0000
_MOST_ARGUMENTS = 1024


class Custom(Field):
    """A field of a class that was made for FFCV, for its readers: records alone."""

    def __init__(self, handler: Any, type_id: int):
        self.handler, self.type_names = handler, {type_id: type(handler).__name__}
        self.record = np.dtype(handler.metadata_type)


class Written(Custom):
    """The same for its writer.

    encode() runs where samples are read, and is given addresses from _SEEMING on; in the record these are found again
    and replaced when the sample has its place.
    """

    pointer = ""

    def __init__(self, name: str, handler: Any, type_id: int):
        super().__init__(handler, type_id)
        self._name = name
        self._numbers = [at for at, dtype in _leaves(self.record) if dtype.kind in "ui" and dtype.itemsize == 8]

    def arguments(self) -> bytes:
        """What to_binary() gives."""
        content = np.asarray(self.handler.to_binary()).tobytes()
        if len(content) > _MOST_ARGUMENTS:
            what = f"{type(self.handler).__name__}.to_binary() of the field '{self._name}' gives {len(content)} bytes"
            raise UserError(what, f"give {_MOST_ARGUMENTS}, of the dtype ARG_TYPE")
        return content

    def encode(self, value: Any, choice: Any = None) -> Encoded:
        """What the handler's encode() stores: the record's bytes, where it has addresses, and sizes of the pieces."""
        record, pieces, taken = np.zeros(1, self.record), [], 0

        def malloc(size: int) -> tuple[int, np.ndarray]:
            nonlocal taken
            pieces.append(np.zeros(int(size), np.uint8))
            address, taken = _SEEMING + taken, taken + int(size)
            return address, pieces[-1]

        self.handler.encode(record, value, malloc)
        content = record.tobytes()
        numbers = [(at, int.from_bytes(content[at : at + 8], "little")) for at in self._numbers]
        addresses = [at for at, number in numbers if _SEEMING <= number <= _SEEMING + taken]
        payload = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
        if (pieces and not addresses) or _SEEMING.to_bytes(8, "little")[4:] in payload.tobytes():
            what = f"{type(self.handler).__name__}.encode() puts an address of malloc() elsewhere than into its record"
            raise UserError(what, "keep it in a number of 64 bits of the record ('<u8')")
        return Encoded((content.hex(), addresses, [piece.size for piece in pieces]), payload)

    def row(self, values: Any, address: int) -> Any:
        """The record with the addresses that its memory has in the file."""
        content, addresses, _ = values
        record = np.frombuffer(bytearray.fromhex(content), np.uint8)
        for at in addresses:
            number = record[at : at + 8].view("<u8")
            number[0] = int(number[0]) - _SEEMING + address
        return record.view(self.record)[0].item()

    def pieces(self, values: Any, address: int) -> list[tuple[int, int]]:
        """Address and bytes of each piece of memory."""
        sizes = values[2]
        return [(address + at, size) for at, size in zip(accumulate(sizes, initial=0), sizes, strict=False) if size]


def _leaves(dtype: np.dtype, at: int = 0) -> Iterator[tuple[int, np.dtype]]:
    """Offset and dtype of each number in a record."""
    if dtype.names:
        for inner, offset, *_ in dtype.fields.values():
            yield from _leaves(inner, at + offset)
    elif dtype.subdtype:
        inner, shape = dtype.subdtype
        for number in range(int(np.prod(shape))):
            yield from _leaves(inner, at + number * inner.itemsize)
    else:
        yield at, dtype
