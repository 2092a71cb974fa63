"""A pool of batch-sized arrays that are reused, but never while somebody still holds the batch.

Touching fresh memory costs more than writing a batch to it (77 MB for 128 float images of 224
pixels), so batches are written to memory that earlier batches have left.
"""

import math
import mmap
import weakref

import numpy as np
import torch

from beton.errors import UserError

_LINE = 64  # bytes of a cache line
_PORTABLE = 1  # cudaHostRegisterPortable: page-locked for every CUDA context


def _page_locked(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array in memory that a GPU can copy from by itself.

    Not torch's pinned memory, of which every piece has a power of two of bytes: 256 MB for a batch of 154.
    """
    size = max(1, math.prod(shape) * dtype.itemsize)
    whole = np.frombuffer(mmap.mmap(-1, size), np.uint8)  # pages that nothing else is on
    runtime = torch.cuda.cudart()
    error = int(runtime.cudaHostRegister(whole.ctypes.data, size, _PORTABLE))
    if error:
        what = f"CUDA cannot lock {size / 1e6:.0f} MB of memory for the batches (cudaHostRegister: error {error})"
        raise UserError(what, "give a smaller `batch_size`, or allow more locked memory (ulimit -l)")
    weakref.finalize(whole, runtime.cudaHostUnregister, whole.ctypes.data).atexit = False
    return whole[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that begins a cache line, as the kernels need it to write past the caches."""
    if dtype.hasobject:
        return np.empty(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    whole = np.empty(size + _LINE, np.uint8)
    start = -whole.ctypes.data % _LINE
    return whole[start : start + size].view(dtype).reshape(shape)


class BufferPool:
    """Arrays of one shape and type, or of objects. `pinned`: in page-locked memory, for copies to a GPU."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, pinned: bool):
        self._shape, self._dtype, self._pinned = shape, np.dtype(dtype), pinned
        self._free: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """An array that nobody uses: a returned one, or a new one when all are held."""
        if self._free:
            return self._free.pop()
        if not self._pinned or self._dtype.hasobject:
            return _aligned(self._shape, self._dtype)
        return _page_locked(self._shape, self._dtype)

    def give_back(self, buffer: np.ndarray) -> None:
        """Return an array that was not handed out."""
        self._free.append(buffer)

    def hand_out(self, buffer: np.ndarray, count: int) -> torch.Tensor | list:
        """The first `count` rows as a tensor; the array returns to the pool when no tensor uses it any more. Rows that
        are objects as a list.

        A tensor made of a NumPy view keeps that view alive as long as its storage lives, whatever
        views are made of the tensor. So the end of the view is the end of all use.
        """
        if self._dtype.hasobject:
            rows = buffer[:count].tolist()
            buffer[:] = None
            self._free.append(buffer)
            return rows
        view = buffer[:count]
        weakref.finalize(view, self._free.append, buffer).atexit = False
        return torch.from_numpy(view)
