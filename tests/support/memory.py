"""Which parts of a file are in the system's memory."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np


def resident_pages(path: Path) -> np.ndarray:
    """The system's pages of a file that are in memory (bool), by mincore."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    with open(path, "rb") as file:
        # Private and writable, as ctypes wants it
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    held = ctypes.c_char.from_buffer(mapped)
    found = np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
    failed = libc.mincore(ctypes.addressof(held), len(mapped), found.ctypes.data)
    del held
    mapped.close()
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return (found & 1).astype(bool)


def drop(path: Path) -> None:
    """Have the system forget what it holds of a file."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
