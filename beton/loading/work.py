"""What the loader has in work within an epoch: its threads, the samples that no batch has yet, batches in the
making."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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


def _close_all(decoders: list[Decoder], of_threads: list[list]) -> None:
    while of_threads:
        for decoder, worker in zip(decoders, of_threads.pop(), strict=True):
            decoder.close_worker(worker)


class Threads:
    """Threads that each have workers of their own; a context of one epoch. `cache`: the pages
    of the file that are in memory meanwhile (cache.py), None where the system sees to that."""

    def __init__(self, workers: Workers, count: int, times: Times | None = None):
        self._workers, self._idle, self._process = workers, SimpleQueue(), os.getpid()
        self._times, self.cache, self._count, self._ended = times, None, count, False
        self._all = [workers.take() for _ in range(count)]
        self._before = [self._spent(workers) if times else None for workers in self._all]
        for workers in self._all:
            self._idle.put(workers)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="beton-loader")

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_) -> None:
        self.end()
        if os.getpid() != self._process:
            return  # forked: a thread of the other process may have been within their memory
        for workers, before in zip(self._all, self._before, strict=True):
            if self._times:
                spent = self._spent(workers)
                spent.subtract(before)
                # It was counted as collating with all the rest of a thread's work
                self._times.add({**spent, "collate": -sum(spent.values())}, 0)
            self._workers.give_back(workers)

    def _spent(self, workers: list) -> Counter:
        """Seconds by part, since they were opened."""
        total = Counter()
        for decoder, worker in zip(self._workers.decoders, workers, strict=True):
            total.update(decoder.spent(worker))
        return total

    def submit(self, work: Callable, chunks: Sequence[tuple]) -> Chunks:
        """Have work(workers, *chunk) done for each of `chunks` (tuples whose second element is their samples)."""
        submitted = Chunks(chunks)
        submitted.futures = [self._pool.submit(self._run, work, submitted) for _ in chunks[: self._count]]
        return submitted

    def _run(self, work: Callable, submitted: Chunks) -> None:
        """In a thread: one chunk after the other, until none is left that no thread has taken."""
        workers = self._idle.get()  # there are as many as threads, so one is always idle
        work = partial(self._timed, work) if self._times else work
        try:
            while submitted.pending and not self._ended:
                submitted.do_next(work, workers)
        finally:
            self._idle.put(workers)

    def _timed(self, work: Callable, workers: list, *chunk):
        started = perf_counter()
        try:
            return work(workers, *chunk)
        finally:
            self._times.add({"collate": perf_counter() - started}, len(chunk[1]))

    def end(self) -> None:
        """Wait for the chunks that have begun; drop the rest."""
        self._ended = True
        if os.getpid() != self._process:  # forked: there are no threads here
            return
        self._pool.shutdown(wait=True, cancel_futures=True)


class Once:
    """What a function returns, which the first thread that asks calls; the others wait for it."""

    def __init__(self, function: Callable):
        self._function, self._lock, self._made = function, threading.Lock(), None

    def __call__(self):
        with self._lock:
            if self._made is None:
                self._made = self._function()
            return self._made


class Chunks:
    """The pieces of a batch. Threads take one after the other, and wake once for a batch, not for each piece: of small
    pieces that would cost more than the work itself."""

    futures: list  # at most one for each thread

    def __init__(self, chunks: Sequence[tuple]):
        self.pending, self._outcomes = deque(enumerate(chunks)), [None] * len(chunks)

    def do_next(self, work: Callable, workers: list) -> None:
        """Do the next one, if there still is one."""
        try:
            number, chunk = self.pending.popleft()
        except IndexError:
            return
        try:
            self._outcomes[number] = work(workers, *chunk)
        except Exception as error:  # noqa: BLE001  raised again by results()
            self._outcomes[number] = error
            self.pending.clear()

    def results(self) -> list:
        """What `work` has returned for each, once all are done; what it has raised for the first that failed is raised
        here."""
        for future in self.futures:
            future.result()
        failed = next((outcome for outcome in self._outcomes if isinstance(outcome, Exception)), None)
        if failed is not None:
            self.forget()
            try:
                raise failed
            finally:
                del failed  # its traceback holds this frame
        return self._outcomes

    def drop(self) -> None:
        """Do no more of them; those that have begun are done when this returns."""
        self.pending.clear()
        for future in self.futures:
            if not future.cancel():
                future.exception()
        self.forget()

    def forget(self) -> None:
        """Hold nothing any more that holds this: an error's traceback, or a chunk whose owner has this."""
        self.pending.clear()
        self._outcomes.clear()


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
    chunks: Chunks | None = None
