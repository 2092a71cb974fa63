"""A pool of batch-sized arrays that are reused, but never while somebody still holds the batch.

Touching fresh memory costs more than writing a batch to it (77 MB for 128 float images of 224
pixels), so batches are written to memory that earlier batches have left.
"""

import weakref

import numpy as np
import torch


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
            return np.empty(self._shape, self._dtype)
        like = torch.from_numpy(np.empty(0, self._dtype)).dtype
        return torch.empty(self._shape, dtype=like, pin_memory=True).numpy()

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
