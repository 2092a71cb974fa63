"""A .beton, or several as one, mapped into memory for threads that read many samples at a time."""

from __future__ import annotations

import zlib

import numpy as np

from beton.errors import DamagedSample, UserError
from beton.format.file import BetonFile
from beton.format.tables import Column
from beton.kernels import Guard


class MappedFile:
    """The bytes of an open file (`bytes`, uint8). `verify`: compare each sample that is read with its checksum.
    `cached`: its user says which parts are in memory (no_read_ahead, fetch, release).

    Raises UserError where there are no checksums to compare with, and for `cached` on a system without these.
    """

    def __init__(self, file: BetonFile, verify: bool = False, cached: bool = False):
        if verify and file.checksums is None:
            raise UserError(f"{file.path} has no checksums", "leave out `verify`, or write the dataset again")
        self.path, self._file, self._verify = file.path, file, verify
        self._stored = [column for column in file.columns.values() if column.sizes is not None]
        self._map, self.arrival = file.map_to_cache() if cached else file.map(), file.arrival
        self.bytes = self._map.bytes
        self._guard = Guard(self.bytes)

    def close(self) -> None:
        """Unmap it, once nobody holds a part of it any more. No thread may be reading."""
        if self.arrival is not None:
            self.arrival.close()
        if self._guard is not None:
            self._guard.close()
        self._guard = self.bytes = None
        self._map.close()

    def payload(self, column: Column, sample: int) -> np.ndarray:
        """The bytes (uint8) of one sample's payload in a column: a view."""
        start = int(column.addresses[sample])
        return self.bytes[start : start + int(column.sizes[sample])]

    def check_numbers(self, samples: np.ndarray) -> None:
        """Raise IndexError for one of `samples` (int64) that the file has not."""
        wrong = samples[(samples < 0) | (samples >= len(self._file))]
        if len(wrong):
            raise IndexError(f"sample {wrong[0]} of {self.path} is out of range; it has {len(self._file)} samples")

    def check(self, samples: np.ndarray) -> None:
        """To be called before samples (int64) are read. Raises DamagedSample for one whose checksum differs, UserError
        where a part of the file could not be read before. Waits for what is still on its way.
        """
        self._check_open()
        if self.arrival is not None:
            self.arrival.wait(samples)
        if self._verify:
            for sample in samples.tolist():
                self._compare(sample)
        self.check_read()

    def _check_open(self) -> None:
        if self.bytes is None:
            raise RuntimeError(f"{self.path} is closed")

    def check_read(self) -> None:
        """To be called after samples were read, whatever came of it. Raises UserError where a part of the file could
        not be read: there were zeros in place of what was lost."""
        self._check_open()
        if self._guard.torn:
            raise self._truncated()

    def check_whole(self, samples: np.ndarray) -> None:
        """To be called before samples (int64) are read, and again before what was read is used, or called damaged.
        Raises UserError where the file with them was truncated since it was opened: up to the end of a page of memory,
        what was there reads as zeros without check_read() noticing."""
        self._check_open()
        if self._stored and not self._map.is_whole(self._stored[0], samples):
            raise self._truncated()

    def _truncated(self) -> UserError:
        what = f"{self.path} was truncated while it was in use"
        return UserError(what, "write the dataset again; if its size is what it was, the disk could not read it")

    def _compare(self, sample: int) -> None:
        checksum = 0
        for column in self._stored:
            checksum = zlib.crc32(self.payload(column, sample), checksum)
        if checksum != self._file.checksums[sample]:
            raise self._file.damaged(sample, self._stored[0].name, "its checksum differs")

    def damaged(self, sample: int, name: str, why: str) -> DamagedSample:
        """The error for a sample of this file."""
        return self._file.damaged(sample, name, why)

    def pages(self) -> np.ndarray:
        """Which page of the file each sample lies on (int64)."""
        if not self._stored:
            return np.zeros(len(self._file), np.int64)
        return self._stored[0].addresses.astype(np.int64) // self._file.page_size

    @property
    def page_size(self) -> int:
        """Bytes of a page."""
        return self._file.page_size

    def extents(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each sample's payloads begin and end in `bytes` (int64, one a sample each)."""
        starts = [column.addresses.astype(np.int64) for column in self._stored]
        stops = [start + column.sizes for start, column in zip(starts, self._stored, strict=True)]
        return np.minimum.reduce(starts), np.maximum.reduce(stops)

    def fetch(self, start: int, stop: int) -> None:
        """Ask the system to read bytes start ... stop - 1, within a page of the file, from disk now."""
        self._map.fetch(start, stop)

    def release(self, start: int, stop: int) -> None:
        """Let the system drop these bytes from memory: whole pages of its own. They may be read again."""
        self._map.release(start, stop)

    def no_read_ahead(self) -> None:
        """Have the system read nothing but what is fetched, or used."""
        self._map.no_read_ahead()

    def prefetch(self, samples: np.ndarray) -> None:
        """Ask the system to read these samples from disk now, so that they are there when needed."""
        for column in self._stored:
            for sample in samples.tolist():
                start, size = int(column.addresses[sample]), int(column.sizes[sample])
                if size:
                    self._map.advise(start, size)
