"""The library's loader with what FFCV's operations make of a batch: behind the rows, in its threads; or on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from beton.ffcv.plan import Planned
from beton.loading.columns import Columns
from beton.loading.loader import Loader
from beton.loading.sampling import numbered
from beton.loading.task import Task
from beton.loading.work import Batch, Rest, Threads
from beton.rng import sample_keys


@dataclass
class _Made(Batch):
    """A batch, the `number`-th of `epoch`, of which so many chunks are `left`; `result` when there are none."""

    rest: Rest | None = None
    epoch: int = 0
    number: int = 0
    left: int = 0
    result: tuple | None = None


class _FullTask(Task):
    """A task whose batches the caller counts."""

    def batches(self, num_samples: int, epoch: int = 0) -> int:
        """Nobody asks."""
        return 0


class Engine(Loader):
    """Batches of the pipelines `planned` of an open file, `mapped`; which samples an epoch has, its caller says.

    `in_memory`: False has the system asked to read coming batches.
    """

    def __init__(self, mapped: Any, planned: Sequence[Planned], num_samples: int, ahead: int, **task: Any):
        self._mapped, self.planned, self.num_samples = mapped, list(planned), num_samples
        self._lock, self.ahead = threading.Lock(), ahead
        devices = [of_it.copy.device for of_it in planned if of_it.copy is not None]
        super(Loader, self).__init__(_FullTask(mapped.path, device=str(devices[0]) if devices else "cpu", **task))

    def open(self) -> None:
        """Plan the memory of batches."""
        self.classes, task = [], self.task
        decoders = {of_it.name: of_it.decoder for of_it in self.planned if of_it.decoder is not None}
        self._columns = Columns(task.dataset, decoders, task.batch_size, self.on_gpu)
        self.times = None
        self._open_workers()

    def release(self) -> None:
        """The file is the caller's."""

    def run(self, epoch: int, samples: np.ndarray) -> Iterator[tuple]:
        """The batches of an epoch that has these samples (int64)."""
        of_epoch = object.__new__(Engine)  # several may be under way
        vars(of_epoch).update(vars(self), _epoch=epoch, _samples=samples)
        return of_epoch.batches(epoch)

    def order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples, and their keys."""
        return self._samples, sample_keys(self.task.seed, epoch, numbered(self._samples, self.num_samples))

    def _batches(self, epoch: int, start: int) -> Iterator[tuple]:
        if not self.on_gpu:
            yield from super()._batches(epoch, start)
            return
        from beton.loading.to_device import to_device

        samples, keys = self.order(epoch)
        batches = self.read(epoch, samples, keys, start)
        with closing(to_device(batches, self.task, make=partial(self._on_gpu, epoch))) as copied:
            yield from map(tuple, copied)

    def _on_gpu(self, epoch: int, host: tuple) -> list:
        """What is left for the GPU, in the order of the pipelines."""
        number, samples, *columns = host
        paired = zip(self.planned, columns, strict=True)
        return [of_it.device(column, samples, epoch, number) for of_it, column in paired]

    def batch_of(self, columns: tuple) -> tuple:
        """A plain tuple."""
        return tuple(columns[2:])

    # In the threads

    def _submit(self, threads: Threads, rest: Rest, count: int, buffers: list[np.ndarray]) -> Batch:
        place, samples, keys = rest.take(count)
        if not self.task.in_memory:
            self._mapped.prefetch(samples)
        number, pieces = place.start // self.task.batch_size, -(-len(samples) // self._chunk)
        batch = _Made(place, samples, buffers, None, rest, self._epoch, number, pieces)
        batch.chunks = threads.submit(self._fill_part, self._pieces(batch, samples, keys, buffers))
        return batch

    def _fill_part(self, workers: list, batch: _Made, *piece: Any) -> list:
        """Fill a chunk; the thread that fills the last one of a batch runs the operations on the whole."""
        damaged = self._fill(workers, batch.rest, *piece)
        with self._lock:
            batch.left -= 1
            last = batch.left == 0
        if last:
            self._run(batch)
        return damaged

    def _run(self, batch: _Made) -> None:
        self._mapped.check_whole(batch.samples)
        buffers, batch.buffers = batch.buffers, []  # returned when nobody holds their rows
        rows = iter(self._columns.hand_out(buffers, len(batch.samples))[0])
        about = batch.samples, batch.epoch, batch.number
        try:
            made = [of_it.host(None if of_it.decoder is None else next(rows), *about) for of_it in self.planned]
        finally:  # users' decoders read the file
            self._mapped.check_read()
        batch.result = batch.number, batch.samples, *made

    def _give_back(self, batch: Batch) -> None:
        if batch.buffers:
            super()._give_back(batch)

    def _hand_out(self, batch: Batch) -> tuple:
        """Its number and its samples in front."""
        return batch.result
