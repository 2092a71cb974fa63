"""Files mapped into memory: one, or several in one range of addresses."""

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence
from typing import IO

import numpy as np

from beton import system
from beton.errors import UserError
from beton.format.tables import Column

_PROT_NONE, _MAP_FIXED, _FAILED = 0, 0x10, ctypes.c_void_p(-1).value
# Where a byte is used, Linux maps all of these around it that are in memory: none beyond a page of a .beton
_ALIGNED = 64 << 10


class FileMap:
    """The `bytes` (uint8) of one open file, to be read only. The file may be closed; close() when it is not needed."""

    def __init__(self, file: IO[bytes]):
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes = np.frombuffer(self._map, np.uint8)

    def close(self) -> None:
        """Unmap it, once nobody holds a part of it any more."""
        self.bytes = self._map = None

    def is_whole(self, column: Column, samples: np.ndarray) -> bool:
        """Whether the file with these samples (int64) of a column is as long as it was: else it cannot be read."""
        return self._map.size() >= len(self._map)

    def advise(self, start: int, length: int) -> None:
        """Ask the system to read bytes start ... start + length - 1 from disk now."""
        system.advise_willneed(self._map, start, length)


class JoinedMap:
    """The same of several files: `bases[n]` is where in `bytes` file n begins, a multiple of the system's pages.

    What lies between two files cannot be read. Raises OSError, and UserError where the system cannot do it. Of one file
    it can say what is to be in memory, as of several.
    """

    def __init__(self, files: Sequence[IO[bytes]], bases: Sequence[int]):
        if os.name != "posix":
            raise UserError("this system cannot map several files as one", "merge them: python -m beton merge")
        self._bases, self._sizes = np.array(bases, np.uint64), [os.fstat(file.fileno()).st_size for file in files]
        total = bases[-1] + self._sizes[-1]
        self._libc = _libc()
        whole = self._mapped(None, total + _ALIGNED, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANON, -1)
        self._start = -(-whole // _ALIGNED) * _ALIGNED
        buffer = (ctypes.c_uint8 * total).from_address(self._start)
        weakref.finalize(buffer, self._libc.munmap, whole, total + _ALIGNED).atexit = False
        for file, base, size in zip(files, bases, self._sizes, strict=True):
            flags = mmap.MAP_SHARED | _MAP_FIXED
            self._mapped(self._start + base, size, mmap.PROT_READ, flags, file.fileno())
        self._descriptors = [os.dup(file.fileno()) for file in files]
        self._closing = weakref.finalize(self, _close, self._descriptors)
        self.bytes = np.frombuffer(buffer, np.uint8)

    def _mapped(self, address: int | None, size: int, protection: int, flags: int, descriptor: int) -> int:
        found = self._libc.mmap(address, size, protection, flags, descriptor, 0)
        if found == _FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return found

    def close(self) -> None:
        """Unmap them, once nobody holds a part of them any more."""
        self.bytes = None
        self._closing()

    def is_whole(self, column: Column, samples: np.ndarray) -> bool:
        """Whether the files with these samples (int64) of a column are as long as they were."""
        files = np.searchsorted(self._bases, column.addresses[samples], "right") - 1
        for number in np.unique(files.clip(0)).tolist():
            if os.fstat(self._descriptors[number]).st_size < self._sizes[number]:
                return False
        return True

    def advise(self, start: int, length: int) -> None:
        """Ask the system to read bytes start ... start + length - 1 from disk now."""
        first = start // mmap.PAGESIZE * mmap.PAGESIZE
        self._libc.madvise(self._start + first, start + length - first, mmap.MADV_WILLNEED)

    def fetch(self, start: int, stop: int) -> None:
        """Ask the system to read bytes start ... stop - 1, of one file, from disk now."""
        number = int(np.searchsorted(self._bases, start, "right")) - 1
        base = int(self._bases[number])
        system.fetch(self._descriptors[number], start - base, stop - base)

    def release(self, start: int, stop: int) -> None:
        """Let the system drop bytes start ... stop - 1, of one file, from memory; multiples of the system's pages."""
        number = int(np.searchsorted(self._bases, start, "right")) - 1
        base = int(self._bases[number])
        self._libc.madvise(self._start + start, stop - start, mmap.MADV_DONTNEED)  # what is mapped is kept
        system.forget(self._descriptors[number], start - base, stop - base)

    def no_read_ahead(self) -> None:
        """Have nothing read but what is asked for, or used."""
        for base, size in zip(self._bases.tolist(), self._sizes, strict=True):
            self._libc.madvise(self._start + base, size, mmap.MADV_RANDOM)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _libc() -> ctypes.CDLL:
    """The functions that Python's mmap has no addresses for."""
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype, libc.mmap.argtypes = pointer, [pointer, size, number, number, number, ctypes.c_int64]
    libc.munmap.restype, libc.munmap.argtypes = number, [pointer, size]
    libc.madvise.restype, libc.madvise.argtypes = number, [pointer, size, number]
    return libc
