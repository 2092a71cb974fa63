"""The batches of one epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class EpochIterator:
    """The batches of the epoch that has just begun in `loader`, of the samples `order`. Leaving it, or close(), ends
    the threads that make them."""

    def __init__(self, loader: Any, order: Sequence[int]):
        self.loader, self.order = loader, order
        samples = np.asarray(order).astype(np.int64)
        self._batches = loader._engine.run(loader.next_epoch - 1, samples)

    def __next__(self) -> tuple:
        return next(self._batches)

    def __iter__(self) -> Iterator[tuple]:
        return self

    def close(self) -> None:
        """End it."""
        self._batches.close()

    def join(self, timeout: float | None = None) -> None:
        """Nothing: close() has waited."""
