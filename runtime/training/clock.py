"""Splits the time of an epoch into waiting for data and the rest. Seconds of the monotonic clock."""

import time
from collections.abc import Iterable, Iterator

import torch


class EpochClock:
    """Times one pass over batches.

    The first batch is counted separately: it includes the start of threads or processes and the compilation of
    the stages. CUDA is synchronised only at the end. `earlier`: facts() of the part of the epoch before an
    interruption, which are included.
    """

    def __init__(self, device: torch.device, earlier: dict | None = None):
        earlier = earlier or {}
        self._device = device
        self._start = time.perf_counter()
        self._total = self._earlier = earlier.get("train_time", 0.0)
        self.first_batch = earlier.get("first_batch_time", 0.0)
        self.waited = earlier.get("wait_time", 0.0)
        self.images = earlier.get("images", 0)

    def watch(self, batches: Iterable) -> Iterator:
        """Yield the batches; the time until each of them arrives counts as waiting."""
        batches, first = iter(batches), True
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            waited = time.perf_counter() - before
            if batch is None:
                return
            if first:
                self.first_batch, first = self.first_batch + waited, False
            else:
                self.waited += waited
            self.images += len(batch[1])
            yield batch

    def stop(self) -> float:
        """Seconds since the start, including all work on the GPU."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._total = self._earlier + time.perf_counter() - self._start
        return self._total

    def facts(self) -> dict:
        """For the log, after stop(): `images_per_second` excludes the wait for the first batch."""
        steady = self._total - self.first_batch
        return {
            "train_time": self._total,
            "wait_time": self.waited,
            "first_batch_time": self.first_batch,
            "images": self.images,
            "images_per_second": self.images / steady if steady > 0 else None,
        }
