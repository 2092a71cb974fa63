"""Where the payloads and tables of a .beton lie while it is written."""

import os
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Encoded, Field
from beton.format.records import ALLOCATION, DESCRIPTOR, HEADER, LARGEST_PAGE, VERSION, metadata_record

_ALIGNMENT = 64  # bytes


class Layout:
    """Places samples one after the other, right behind the tables; the payloads of none cross a page, so that FFCV can
    read page by page. Pages grow to the next power of two when a sample does not fit in one: what lies within a
    small page lies within the large page around it too.

    `records[name]` (one a sample), `sizes[name]` and `passed[name]` (of payloads: bytes; whether it is as the source
    gave it), `crc32s` (of each sample's payloads) have room for all samples; the first `count` are placed. `notes`:
    what was noted of single samples.
    """

    def __init__(self, file: IO[bytes], fields: dict[str, Field], capacity: int, page_size: int):
        self._file, self.page_size, self.fields, self.notes = file, page_size, fields, {}
        self._metadata = np.zeros(capacity, metadata_record([field.record for field in fields.values()]))
        self.records = {name: self._metadata[f"f{i}"] for i, name in enumerate(fields)}
        self._stored = [name for name, field in fields.items() if field.pointer is not None]
        self.sizes = {name: np.zeros(capacity, np.int64) for name in self._stored}
        self.passed = {name: np.zeros(capacity, bool) for name in self._stored}
        self.crc32s = np.zeros(capacity, "<u4")
        self.count = self.index_crc32 = 0
        head = HEADER.itemsize + len(fields) * DESCRIPTOR.itemsize + self._metadata.nbytes
        self._position = None  # of the file, where that is known
        # Address and size, of fields with several payloads a sample
        self._pieces: dict[int, list[tuple[int, int]]] = {}
        self._at = self._start = -(-head // _ALIGNMENT) * _ALIGNMENT

    def place(self, encoded: list[Encoded], crc32: int, name: str, sample: int | None = None) -> list:
        """Append a sample, or replace the payloads of `sample`; `name` is for the error that it is too large.

        Returns the step for the journal. Once flush() returns, the payloads outlive the process.
        """
        sample = self.count if sample is None else sample
        values = [[list(e.values), 0 if e.payload is None else e.payload.nbytes, e.passed, e.note] for e in encoded]
        step, size = [sample, crc32, values], self._size(values)
        if size > LARGEST_PAGE:
            what = f"{name} takes {size} bytes, more than the largest page of {LARGEST_PAGE}"
            raise UserError(what, "make it smaller: images by `max_resolution`, or write_mode='jpg'")
        address = self._address(size)
        if address != self._position:  # to seek would empty the file's buffer
            self._file.seek(address)
        for field, e in zip(self.fields.values(), encoded, strict=True):
            if field.pointer is not None:
                self._file.write(e.payload if e.payload.nbytes else b"\0")
        self._position = address + size
        self._enter(step, address, size)
        return step

    def flush(self) -> None:
        """Give the system all that has been placed."""
        self._file.flush()

    def take_over(self, step: list) -> bool:
        """Enter a sample that an earlier process has placed; False if its payloads do not lie there whole."""
        _, crc32, values = step
        whole, found = self._size(values), 0
        address = self._address(whole)
        for _, size, at in self._places(values, address):
            self._file.seek(at)
            found = zlib.crc32(self._file.read(size), found)
        if found != crc32:
            return False
        self._enter(step, address, whole)
        return True

    def _address(self, size: int) -> int:
        while size > self.page_size:
            self.page_size *= 2
        left = self.page_size - self._at % self.page_size
        return self._at + (left if size > left else 0)

    def _enter(self, step: list, address: int, size: int) -> None:
        """Enter a sample whose payloads, so many bytes, lie from `address` on."""
        sample, self.crc32s[step[0]], values = step
        address_of = {}
        self._at = address + size
        for name, size, at in self._places(values, address):
            address_of[name], self.sizes[name][sample] = at, size
        self.notes.pop(sample, None)
        self._pieces.pop(sample, None)
        row = []
        for (name, field), (given, _, passed, note) in zip(self.fields.items(), values, strict=True):
            if note:
                self.notes[sample] = note
            if name in address_of and field.pieces:
                self._pieces.setdefault(sample, []).extend(field.pieces(given, address_of[name]))
            if name in address_of:
                self.passed[name][sample] = passed
            row.append(field.row(given, address_of.get(name, 0)))
        self._metadata[sample] = tuple(row)
        self.count = max(self.count, sample + 1)

    def _places(self, values: list, at: int) -> Iterator[tuple[str, int, int]]:
        """Name, size and address of each payload of a journal's step, the first at `at`.

        An empty one has an address of its own, and so takes one byte.
        """
        for (name, field), (_, size, *_) in zip(self.fields.items(), values, strict=True):
            if field.pointer is not None:
                yield name, size, at
                at += max(1, size)

    def _size(self, values: list) -> int:
        """Bytes that all payloads of a journal's step take."""
        fields = zip(self.fields.values(), values, strict=True)
        return sum(max(1, size) for field, (_, size, *_) in fields if field.pointer is not None)

    def truncate(self) -> None:
        """Drop all that lies in the file but the payloads entered."""
        self._file.truncate(self._at if self.count else 0)
        if self.count:  # the tables may have been begun
            self._file.seek(0)
            self._file.write(bytes(self._start))

    def finish(self) -> None:
        """Write the tables around the payloads."""
        metadata = self._metadata[: self.count]
        descriptors = np.zeros(len(self.fields), DESCRIPTOR)
        for i, (name, type_id) in enumerate(self.type_ids.items()):
            descriptors[i]["type_id"] = type_id
            descriptors[i]["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
            arguments = np.frombuffer(self.fields[name].arguments(), np.uint8)
            descriptors[i]["arguments"][: len(arguments)] = arguments
        header = np.array((VERSION, len(descriptors), self.page_size, self.count, self._at), HEADER)
        whole = [name for name in self._stored if not self.fields[name].pieces]
        table = np.zeros((self.count, len(whole)), ALLOCATION)
        table["sample_id"] = np.arange(self.count)[:, None]
        for column, name in enumerate(whole):
            table[:, column]["ptr"] = self.fields[name].addresses(self.records[name])[: self.count]
            table[:, column]["size"] = self.sizes[name][: self.count]
        pieces = [(sample, *piece) for sample, found in self._pieces.items() for piece in found]
        table = np.concatenate([table.reshape(-1), np.array(pieces, ALLOCATION)])
        head = header.tobytes() + descriptors.tobytes() + metadata.tobytes()
        self.index_crc32 = zlib.crc32(table.tobytes(), zlib.crc32(head))
        self._file.truncate(self._at)  # so far also where there are no payloads
        self._file.seek(self._at)
        self._file.write(table.tobytes())
        self._file.seek(0)
        self._file.write(head)
        self._file.flush()
        os.fsync(self._file.fileno())

    @property
    def type_ids(self) -> dict[str, int]:
        """The number of each field's type, which may depend on what was stored."""
        return {name: field.type_id(self.records[name][: self.count]) for name, field in self.fields.items()}
