"""Where the payloads and tables of a .beton lie while it is written."""

import os
import zlib

import numpy as np

from pipelines import beton
from pipelines.encode import Encoded
from pipelines.errors import UserError


class Layout:
    """Places payloads one after the other; none crosses a page, so that FFCV can read page by page."""

    def __init__(self, file, capacity: int, page_size: int):
        self._file, self._page_size = file, page_size
        self.record = beton.metadata_type([beton.RGB_FIELD, beton.INT_FIELD])
        self.metadata = np.zeros(capacity, self.record)
        self.sizes = np.zeros(capacity, np.int64)
        self.crc32s = np.zeros(capacity, "<u4")
        self.passed = np.zeros(capacity, bool)
        self.count = self.index_crc32 = 0
        head = beton.HEADER.itemsize + 2 * beton.FIELD.itemsize + self.metadata.nbytes
        self._at = self._first_page = -(-head // page_size) * page_size

    @property
    def fields(self) -> dict[str, int]:
        """Names and type ids; FFCV shall refuse a file of which it cannot decode all."""
        blocks = (self.metadata["f0"]["mode"][: self.count] == beton.BLOCKS).any()
        return {"image": beton.BLOCKS_FIELD if blocks else beton.RGB_FIELD, "label": beton.INT_FIELD}

    def place(self, encoded: Encoded, label: int, name: str, sample: int | None = None) -> list:
        """Append a sample, or replace the payload of `sample`; `name` is for the error that it is too large.

        Returns the step for the journal. The payload outlives the process, should that die now.
        """
        size = encoded.payload.nbytes
        if size > self._page_size:
            what = f"{name} takes {size} bytes, more than a page of {self._page_size}"
            raise UserError(what, "set cfg.max_resolution")
        self._file.seek(self._address(size))
        self._file.write(encoded.payload)
        self._file.flush()
        sample = self.count if sample is None else sample
        step = [sample, encoded.mode, encoded.width, encoded.height, size, encoded.crc32, encoded.passed]
        self._enter(step, label)
        return step

    def take_over(self, step: list, label: int) -> bool:
        """Enter a payload that an earlier process has placed; False if it does not lie there whole."""
        size, crc32 = step[4:6]
        self._file.seek(self._address(size))
        if zlib.crc32(self._file.read(size)) != crc32:
            return False
        self._enter(step, label)
        return True

    def _address(self, size: int) -> int:
        left = self._page_size - self._at % self._page_size
        return self._at + (left if size > left else 0)

    def _enter(self, step: list, label: int) -> None:
        sample, mode, width, height, size, crc32, passed = step
        at = self._address(size)
        self.metadata[sample] = ((mode, width, height, at), label)
        self.sizes[sample], self.crc32s[sample], self.passed[sample] = size, crc32, passed
        self.count = max(self.count, sample + 1)
        self._at = at + size

    def cut(self) -> None:
        """Drop all that lies in the file but the payloads entered."""
        self._file.truncate(self._at if self.count else 0)
        if self.count:  # the tables may have been begun
            self._file.seek(0)
            self._file.write(np.zeros(self._first_page, np.uint8))

    def finish(self) -> None:
        """Write the tables around the payloads."""
        fields = np.zeros(len(self.fields), beton.FIELD)
        # No two names have the same first 16 characters, after which FFCV cuts them off
        for descriptor, (name, type_id) in zip(fields, self.fields.items(), strict=True):
            descriptor["type_id"] = type_id
            descriptor["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        header = np.array((beton.VERSION, len(fields), self._page_size, self.count, self._at), beton.HEADER)
        table = np.zeros(self.count, beton.ALLOCATION)
        table["sample_id"] = np.arange(self.count)
        table["ptr"] = self.metadata["f0"]["data_ptr"][: self.count]
        table["size"] = self.sizes[: self.count]
        head = header.tobytes() + fields.tobytes() + self.metadata[: self.count].tobytes()
        self.index_crc32 = zlib.crc32(table, zlib.crc32(head))
        self._file.seek(self._at)
        self._file.write(table.tobytes())
        self._file.seek(0)
        self._file.write(head)
        self._file.flush()
        os.fsync(self._file.fileno())
