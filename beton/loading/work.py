"""What the loader has in work within an epoch: its threads, the samples that no batch has yet, batches in the
making."""

from __future__ import annotations

import os
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter

import numpy as np

from beton.format.fields.base import Decoder
from beton.loading.times import Times


class Workers:
    """What threads need for themselves, for every decoder: used again by later epochs, for it grows more useful (the
    weights of small photos, Huffman tables, memory that was touched). Freed when nobody holds this."""

    def __init__(self, decoders: list[Decoder], chunk: int):
        self.decoders, self._chunk, self._idle = decoders, chunk, []
        weakref.finalize(self, _close_all, decoders, self._idle).atexit = False

    def take(self) -> list:
        """Those of a thread, for it alone."""
        try:
            return self._idle.pop()
        except IndexError:
            return [decoder.open_worker(self._chunk) for decoder in self.decoders]

    def give_back(self, workers: list) -> None:
        """Return them when the thread has ended."""
        self._idle.append(workers)

    def close(self, workers: list) -> None:
        """Free those of a thread that has ended."""
        _close_all(self.decoders, [workers])


def _close_all(decoders: list[Decoder], of_threads: list[list]) -> None:
    while of_threads:
        for decoder, worker in zip(decoders, of_threads.pop(), strict=True):
            decoder.close_worker(worker)


class Threads:
    """Threads that each have workers of their own; a context of one epoch. `cache`: the pages
    of the file that are in memory meanwhile (cache.py), None where the system sees to that."""

    def __init__(self, workers: Workers, count: int, times: Times | None = None):
        self._workers, self._idle, self._process = workers, SimpleQueue(), os.getpid()
        self._times, self.cache = times, None
        self._all = [workers.take() for _ in range(count)]
        for workers in self._all:
            self._idle.put(workers)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="beton-loader")

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_) -> None:
        self.end()
        if os.getpid() != self._process:
            return  # forked: a thread of the other process may have been within their memory
        for workers in self._all:
            if not self._times:
                self._workers.give_back(workers)
                continue
            for decoder, worker in zip(self._workers.decoders, workers, strict=True):
                spent = decoder.spent(worker)  # since it was opened
                # It was counted as collating with all the rest of a thread's work
                self._times.add({**spent, "collate": -sum(spent.values())}, 0)
            self._workers.close(workers)

    def submit(self, work, *arguments) -> Future:
        """Have work(workers, *arguments) done. There are as many workers as threads, so some are always idle."""

        def run():
            workers = self._idle.get()
            try:
                return work(workers, *arguments)
            finally:
                self._idle.put(workers)

        return self._pool.submit(self._timed(run, len(arguments[1])) if self._times else run)

    def _timed(self, run, samples: int):
        def timed():
            started = perf_counter()
            try:
                return run()
            finally:
                self._times.add({"collate": perf_counter() - started}, samples)

        return timed

    def end(self) -> None:
        """Wait for what has begun; drop the rest."""
        if os.getpid() != self._process:  # forked: there are no threads here
            return
        self._pool.shutdown(wait=True, cancel_futures=True)


class Rest:
    """Samples and keys of this epoch not yet assigned to a batch; `population`: what may replace them, None for all.
    `is_left`: nobody wants the epoch any more."""

    def __init__(self, samples: np.ndarray, keys: np.ndarray, start: int, population: np.ndarray | None):
        self._samples, self._keys, self._end = samples, keys, len(samples)
        self._start, self.population, self.is_left = min(start, self._end), population, False

    def __len__(self) -> int:
        return self._end - self._start

    def take(self, count: int) -> tuple[slice, np.ndarray, np.ndarray]:
        """The next `count`, or fewer at the end: which part of the order, samples and keys."""
        place = slice(self._start, min(self._start + count, self._end))
        self._start = place.stop
        return place, self._samples[place].copy(), self._keys[place]

    def put_back(self, place: slice) -> None:
        """Only what was taken last, and only when nothing is left: what came after it is used."""
        self._start, self._end = place.start, place.stop


@dataclass
class Batch:
    """A batch in the making; `samples` are what its rows hold in the end, `buffers` one for each column."""

    place: slice
    samples: np.ndarray
    buffers: list[np.ndarray]
    futures: list[Future]
