"""Numbers, arrays and bytes of a field as rows of a batch: what the loader's threads copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Decoder
from beton.kernels.jit import jit


class Numbers(Decoder):
    """One number of each record (N x 1)."""

    shape = (1,)

    def __init__(self, numbers: np.ndarray):
        self.dtype = numbers.dtype.newbyteorder("=")
        self._numbers = np.ascontiguousarray(numbers, self.dtype)

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Copy the numbers of `samples` into target (n x 1)."""
        np.take(self._numbers, samples, out=target.reshape(-1))


@jit
def _copy(file, addresses, sizes, rows):
    for n in range(len(rows)):
        start, size = addresses[n], sizes[n]
        for i in range(size):
            rows[n, i] = file[start + i]
        for i in range(size, rows.shape[1]):
            rows[n, i] = 0


class Bytes(Decoder):
    """The bytes that each record points to (uint8, N x the most that one has); behind those of a shorter one, zeros."""

    dtype = np.dtype(np.uint8)

    def __init__(self, name: str, mapped: Any, addresses: np.ndarray, sizes: np.ndarray):
        self._mapped = mapped
        # The address of nothing means nothing
        self._addresses, self._sizes = np.where(sizes > 0, addresses, 0).astype(np.uint64), sizes.astype(np.uint64)
        end = np.uint64(len(mapped.bytes))
        if (self._sizes > end).any() or (self._addresses > end - self._sizes).any():
            what = f"the field '{name}' of {mapped.path} has bytes beyond the end of the file"
            raise UserError(what, "write the dataset again, or correct the field's encode()")
        self._addresses, self._sizes = self._addresses.astype(np.int64), self._sizes.astype(np.int64)
        self.shape = (int(self._sizes.max(initial=0)),)

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Copy the bytes of `samples` into target (uint8, n x most)."""
        _copy(self._mapped.bytes, self._addresses[samples], self._sizes[samples], target)
