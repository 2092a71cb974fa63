"""Memory that operations write batches to: used again, but never while somebody holds a part of it."""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any

import numpy as np
import torch

from beton.ffcv.pipeline.allocation_query import Allocation, AllocationQuery
from beton.loading.buffers import BufferPool


class _Lease:
    """What a lent array is based on. NumPy bases a view of a view on the first array, unless that has such a base: so
    the lent array is alive as long as any view of it."""

    def __init__(self, buffer: np.ndarray):
        self._buffer, self.__array_interface__ = buffer, buffer.__array_interface__


class _Arrays:
    """Arrays of one shape and type."""

    def __init__(self, query: AllocationQuery, batch_size: int, pinned: bool):
        from beton.ffcv.transforms.ops import numpy_dtype

        shape = (batch_size, *map(int, query.shape))
        self._pool, self._lock = BufferPool(shape, numpy_dtype(query.dtype), pinned), threading.Lock()
        self._is_empty = math.prod(shape) == 0

    def lend(self, count: int) -> np.ndarray:
        """Rows that nobody uses; they come back when nobody does any more."""
        with self._lock:
            buffer = self._pool.take()
        if self._is_empty:
            return buffer[:count]
        lent = np.asarray(_Lease(buffer[:count]))
        weakref.finalize(lent, self._pool.give_back, buffer).atexit = False
        return lent


class _Tensors:
    """Tensors; torch keeps the memory of those that nobody uses by itself."""

    def __init__(self, query: AllocationQuery):
        self._shape, self._dtype = tuple(map(int, query.shape)), query.dtype
        self._device = torch.device(query.device or "cpu")

    def lend(self, count: int) -> torch.Tensor:
        """A tensor of so many rows."""
        return torch.empty((count, *self._shape), dtype=self._dtype, device=self._device)


class Memory:
    """What an operation has asked for. `as_arrays`: it is compiled, and takes no tensors."""

    def __init__(self, wanted: Allocation | None, batch_size: int, as_arrays: bool, pinned: bool = False):
        self.is_one = wanted is None or isinstance(wanted, AllocationQuery)
        queries = [] if wanted is None else [wanted] if self.is_one else list(wanted)
        self.wanted = queries
        self._parts = [
            _Tensors(query)
            if isinstance(query.dtype, torch.dtype) and not as_arrays
            else _Arrays(query, batch_size, pinned)
            for query in queries
        ]

    def lend(self, count: int) -> Any:
        """None, an array or tensor of `count` rows, or a tuple of them."""
        lent = tuple(part.lend(count) for part in self._parts)
        return lent if not self.is_one else lent[0] if lent else None
