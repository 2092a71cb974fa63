"""Reading the tables of a .beton, and checking that they can be those of a complete file."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

import numpy as np

from beton.errors import UserError
from beton.format.fields import by_type_id
from beton.format.fields.base import Field
from beton.format.records import ALLOCATION, DESCRIPTOR, HEADER, VERSION, metadata_record

_TABLE_SIZE = "its allocation table has not the size that it should have"


@dataclass(frozen=True)
class Column:
    """One field of a file: its `records` (one a sample), and the bytes of each payload (`sizes`, int64; None where
    the field has none)."""

    name: str
    field: Field
    type_id: int
    records: np.ndarray
    sizes: np.ndarray | None

    @property
    def addresses(self) -> np.ndarray:
        """Where in the file each payload begins (uint64)."""
        return self.field.addresses(self.records)


@dataclass(frozen=True)
class Tables:
    """What the tables of a file say; `checksum` is the CRC-32 of all of them, `page_size` is in bytes."""

    num_samples: int
    page_size: int
    columns: dict[str, Column]
    checksum: int


def read_tables(file: IO[bytes], path: str, custom: Mapping[str, Field] | None = None) -> Tables:
    """Read and check the tables of an open file; raises UserError when they cannot be those of a complete one.

    `custom`: fields that the library does not know, by name. How many payloads their samples have is theirs.
    """
    size = os.fstat(file.fileno()).st_size
    header, descriptors, type_ids, fields, record = _read_layout(file, path, size, custom)
    num_samples, fields_end = int(header["num_samples"]), HEADER.itemsize + len(descriptors) * DESCRIPTOR.itemsize
    # Not read to find out: with a wrong address it may be most of the file
    if not custom and (size - int(header["alloc_table_ptr"])) // ALLOCATION.itemsize > num_samples * len(fields):
        raise _damaged(path, _TABLE_SIZE)
    tables_end, table_at = fields_end + num_samples * record.itemsize, int(header["alloc_table_ptr"])
    if tables_end > size:
        raise _damaged(path, "its metadata is truncated")
    if tables_end > table_at:
        raise _damaged(path, "the address of its allocation table lies within other tables")
    metadata = _records(file, path, record, num_samples, fields_end)
    table = _records(file, path, ALLOCATION, (size - table_at) // ALLOCATION.itemsize, table_at)
    checksum = 0
    for part in (header.reshape(1), descriptors, metadata, table):
        checksum = zlib.crc32(part.view(np.uint8), checksum)
    payloads = _Payloads(path, table, tables_end, table_at)
    columns = {}
    for i, (name, field) in enumerate(fields.items()):
        records = np.ascontiguousarray(metadata[f"f{i}"])
        sizes = None
        if field.pointer is not None:
            sizes = payloads.sizes(field.addresses(records), field.stated_sizes(records))
        why = field.check(type_ids[name], records, sizes)
        if why:
            raise _damaged(path, why)
        columns[name] = Column(name, field, type_ids[name], records, sizes)
    return Tables(num_samples, int(header["page_size"]), columns, checksum)


def extent(file: IO[bytes], path: str, size: int) -> tuple[int, int]:
    """Where the tables at the beginning of an open file of `size` bytes end, and where those at its end begin.

    Reads the header and the descriptors of the fields only. Raises UserError when it can be no complete file.
    """
    header, descriptors, _, _, record = _read_layout(file, path, size)
    end = HEADER.itemsize + len(descriptors) * DESCRIPTOR.itemsize + int(header["num_samples"]) * record.itemsize
    if end > header["alloc_table_ptr"]:
        raise _damaged(path, "its metadata is truncated")
    return end, int(header["alloc_table_ptr"])


def _read_layout(file: IO[bytes], path: str, size: int, custom: Mapping[str, Field] | None = None) -> tuple:
    """The header, the fields' descriptors, their types' numbers, the fields, and the dtype of a sample's metadata."""
    header = _read_header(file, path, size)
    if HEADER.itemsize + int(header["num_fields"]) * DESCRIPTOR.itemsize > size:
        raise _damaged(path, "its field table is truncated")
    descriptors = _records(file, path, DESCRIPTOR, int(header["num_fields"]), HEADER.itemsize)
    type_ids = _type_ids(path, descriptors)
    try:
        fields = by_type_id(path, type_ids, [d["arguments"].tobytes() for d in descriptors], custom)
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    return header, descriptors, type_ids, fields, metadata_record([field.record for field in fields.values()])


def _damaged(path: str, why: str) -> UserError:
    return UserError(f"{path} is not a complete .beton file ({why})", "write the dataset again")


def _read_header(file: IO[bytes], path: str, size: int) -> np.void:
    if size < HEADER.itemsize:
        raise _damaged(path, f"it has only {size} bytes")
    header = _records(file, path, HEADER, 1, 0)[0]
    if header["version"] != VERSION:
        raise _damaged(path, f"format version {header['version']} instead of {VERSION}")
    if header["alloc_table_ptr"] == 0:  # FFCV writes it last
        raise _damaged(path, "it has no address of its allocation table: writing it was interrupted")
    if not HEADER.itemsize <= header["alloc_table_ptr"] <= size:
        raise _damaged(path, "the address of its allocation table lies outside the file: it is truncated, or damaged")
    if header["num_samples"] == 0:
        raise UserError(f"{path} has no samples", "write a dataset that has some")
    if int(header["page_size"]).bit_count() != 1:
        raise _damaged(path, f"a page size of {header['page_size']}, not a power of two")
    if (size - int(header["alloc_table_ptr"])) % ALLOCATION.itemsize:
        raise _damaged(path, _TABLE_SIZE)
    return header


def _records(file: IO[bytes], path: str, dtype: np.dtype, count: int, offset: int) -> np.ndarray:
    file.seek(offset)
    content = file.read(count * dtype.itemsize)
    if len(content) < count * dtype.itemsize:
        raise _damaged(path, "it became shorter while it was read")
    return np.frombuffer(content, dtype)


def _type_ids(path: str, descriptors: np.ndarray) -> dict[str, int]:
    """Numbers of the fields' types by name."""
    names = [bytes(d["name"]).split(b"\0")[0].decode("ascii", "replace") for d in descriptors]
    if not names:
        raise _damaged(path, "it has no fields")
    if len(set(names)) < len(names):  # FFCV truncates names after 16 bytes
        raise _damaged(path, "two of its fields have the same name")
    return {name: int(d["type_id"]) for name, d in zip(names, descriptors, strict=True)}


class _Payloads:
    """The allocation table, whose payloads must lie from `start` to `stop` without overlapping."""

    def __init__(self, path: str, table: np.ndarray, start: int, stop: int):
        self._path = path
        table = table[table["size"] > 0]
        self._table = table = table[np.argsort(table["ptr"], kind="stable")]
        if not len(table):
            return
        # Not ptr + size > stop: that sum may be beyond 64 bits
        if (table["size"] > stop).any() or (table["ptr"] > stop - table["size"]).any() or table["ptr"][0] < start:
            raise _damaged(path, "payloads beyond the place for payloads")
        if (table["ptr"][1:] < (table["ptr"] + table["size"])[:-1]).any():
            raise _damaged(path, "payloads that overlap")

    def sizes(self, addresses: np.ndarray, stated: np.ndarray | None) -> np.ndarray:
        """Bytes (int64) of the payloads at these addresses, one a sample; `stated` are those that the records have.

        The address of an empty payload means nothing: FFCV gives it that of another one.
        """
        samples = np.arange(len(addresses)) if stated is None else np.flatnonzero(stated)
        sizes, table, addresses = np.zeros(len(addresses), np.int64), self._table, addresses[samples]
        if len(samples) and not addresses.any():
            raise _damaged(self._path, "its metadata is zero: writing it was interrupted")
        at = np.searchsorted(table["ptr"], addresses)
        found = at < len(table)
        if not found.all() or (table["ptr"][at] != addresses).any():
            raise _damaged(self._path, "samples without an entry in the allocation table")
        if (table["sample_id"][at] != samples).any():
            raise _damaged(self._path, "samples whose payloads are those of others")
        sizes[samples] = table["size"][at]
        if stated is not None and (sizes[samples].astype(np.uint64) != stated[samples]).any():
            raise _damaged(self._path, "payloads of another size than the records have")
        return sizes
