"""An epoch of the loader: batches on the host, read ahead by threads, with others in place of damaged samples."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import numpy as np

from beton.errors import DamagedSample
from beton.format.mapped import MappedFile
from beton.loading.cache import Cache, Pages, Schedule, check_memory
from beton.loading.columns import Columns
from beton.loading.damage import RAISE, SKIP, SUBSTITUTE, no_substitute, read_substitute
from beton.loading.position import Positioned
from beton.loading.work import Batch, Once, Rest, Threads, Workers

_LOOK = 0.2  # seconds between looks whether an epoch was left


class Reading(Positioned):
    """Reads what Loader.open() (loader.py) has opened and planned: `_mapped`, `_columns`, `_workers`, `_pages`.

    A thread takes `_chunk` samples at a time. `_caches`: the memory for the file is task.cache_gb, and what has been
    read is let go of.
    """

    _mapped: MappedFile
    _columns: Columns
    _workers: Workers
    _pages: Pages | None
    _chunk: int
    _caches = False

    def read(self, epoch: int, samples: np.ndarray, keys: np.ndarray, start: int) -> Iterator[tuple]:
        """Generator of the batches on the host from batch `start` on; leaving it early ends its threads."""
        # Which samples are left out shows only when they are read: then the batches before `start` are read too
        passed = start if self.task.on_error == SKIP else 0
        rest = Rest(samples, keys, (start - passed) * self.task.batch_size, self._population(samples))
        fewest = self.task.batch_size if self.task.drop_last else 1
        waiting: deque[Batch] = deque()
        with (
            self._cache(samples, (start - passed) * self.task.batch_size) as cache,
            Threads(self._workers, self.task.usable_workers, self.times) as threads,
        ):
            threads.cache = cache
            try:
                while True:
                    while len(waiting) <= self.ahead and len(rest) >= fewest:
                        buffers = self._columns.take()
                        waiting.append(self._submit(threads, rest, self.task.batch_size, buffers))
                    if not waiting:
                        return
                    batch = waiting.popleft()
                    damaged = self._wait(batch)
                    if damaged and self.task.on_error == SKIP:
                        self._fill_up(threads, rest, waiting, batch, damaged)
                    if cache is not None:
                        cache.used(batch.place.stop)
                    if len(batch.samples) < fewest or passed:
                        passed = max(passed - 1, 0)
                        self._give_back(batch)
                        continue
                    yield self._hand_out(batch)
                    del batch
            finally:
                rest.is_left = True
                threads.end()
                for batch in waiting:
                    batch.chunks.forget()
                    self._give_back(batch)

    def _population(self, epoch_samples: np.ndarray) -> np.ndarray | None:
        """The samples that may replace a damaged one, None for all; where only an order of the user's says which, those
        of this epoch."""
        if self.task.sampling is None:
            return None
        known = self.task.sampling.population(self.num_samples)
        return epoch_samples if known is None else known

    def _cache(self, samples: np.ndarray, begin: int):
        """A context: what has the pages of an epoch read and released from position `begin` on, or None."""
        if not self._caches:
            return nullcontext()
        return Cache(self._mapped, self._schedule(samples, begin), self.task)

    def _schedule(self, samples: np.ndarray, begin: int = 0) -> Schedule:
        return Schedule(samples, self._pages, *self._mapped.extents(), begin)

    def _check_memory(self) -> None:
        """Raise UserError where the memory is too little for epoch 0: at once, before the ranks wait for each other."""
        check_memory(self._schedule(self.order(0)[0]), self.task)

    def _submit(self, threads: Threads, rest: Rest, count: int, buffers: list[np.ndarray]) -> Batch:
        """Hand the next `count` samples to the threads in chunks, to be put into `buffers`."""
        place, samples, keys = rest.take(count)
        if threads.cache is not None:
            threads.cache.need(place.stop)
        elif not self.task.in_memory:
            self._mapped.prefetch(samples)
        return Batch(place, samples, buffers, threads.submit(self._fill, self._pieces(rest, samples, keys, buffers)))

    def _pieces(self, about, samples: np.ndarray, keys: np.ndarray, buffers: list[np.ndarray]) -> list[tuple]:
        """What threads take at a time: the arguments of _fill(), with `about` as the first."""
        drawn = Once(partial(self._draw, samples, keys))
        cuts = [slice(at, min(at + self._chunk, len(samples))) for at in range(0, len(samples), self._chunk)]
        return [(about, samples[cut], keys[cut], [buffer[cut] for buffer in buffers], drawn, cut) for cut in cuts]

    def _wait(self, batch: Batch) -> list[int]:
        """Rows that hold damaged samples (or did before a substitute); an exception of a thread is raised here."""
        rows = []
        for start, damaged in zip(range(0, len(batch.samples), self._chunk), batch.chunks.results(), strict=True):
            for row, error in damaged:
                rows.append(start + row)
                self.damaged(error, replaced=self.task.on_error == SUBSTITUTE)
        self._mapped.check_whole(batch.samples)
        return rows

    def _fill_up(self, threads, rest: Rest, waiting: deque, batch: Batch, damaged: list[int]) -> None:
        """Put following samples into the rows of damaged ones; where there are no more, the batch becomes shorter."""
        good = np.ones(len(batch.samples), np.bool_)
        for row in damaged:
            sample = self._next(threads, rest, waiting, [b[row : row + 1] for b in batch.buffers])
            good[row] = sample is not None
            batch.samples[row] = sample if good[row] else 0
        if not good.all():
            for buffer in batch.buffers:
                buffer[: good.sum()] = buffer[: len(good)][good]
            batch.samples = batch.samples[good]

    def _next(self, threads, rest: Rest, waiting: deque, rows: list[np.ndarray]) -> int | None:
        """Put the next good sample that no batch has into rows (one each); at the end those of the last batch."""
        while len(rest) or waiting:
            if not len(rest):
                last = waiting.pop()
                last.chunks.drop()  # waits, for its memory is used again
                self._give_back(last)
                rest.put_back(last.place)
            one = self._submit(threads, rest, 1, rows)
            if not self._wait(one):
                return int(one.samples[0])
        return None

    def _give_back(self, batch: Batch) -> None:
        self._columns.give_back(batch.buffers)

    def _hand_out(self, batch: Batch) -> tuple:
        shown, behind = self._columns.hand_out(batch.buffers, len(batch.samples))
        if not self.task.with_indices:
            return shown + behind
        import torch

        return *shown, torch.from_numpy(batch.samples), *behind

    # In the threads

    def _draw(self, samples: np.ndarray, keys: np.ndarray) -> list[np.ndarray | None]:
        self._mapped.check_numbers(samples)
        self._mapped.check_whole(samples)
        return self._columns.draw(samples, keys)

    def _fill(
        self, workers: list, rest: Rest, samples: np.ndarray, keys: np.ndarray, targets: list, drawn: Once, cut: slice
    ) -> list[tuple]:
        """Make the rows of a few samples, those of a batch at `cut`, for which all was `drawn` together; returns
        (row, DamagedSample) of those that on_error has left out."""
        try:
            own = [rows if rows is None else rows[cut] for rows in drawn()]
        except RuntimeError:
            own = self._draw(samples, keys)  # a stage failed: where it fails again, these are the samples to be named
        try:
            self._read(workers, samples, keys, targets, own)
            return []
        except DamagedSample:
            if self.task.on_error == RAISE:
                raise
        return self._one_by_one(workers, rest, samples, keys, targets)

    def _read(self, workers: list, samples: np.ndarray, keys: np.ndarray, targets: list, drawn: list) -> None:
        try:
            self._mapped.check(samples)
            self._columns.fill(workers, samples, keys, targets, drawn)
        except Exception:  # it is another error where the file was truncated
            self._mapped.check_whole(samples)
            raise
        finally:
            self._mapped.check_read()

    def _wait_for(self, samples: np.ndarray, rest: Rest) -> None:
        """Until samples are there: a substitute may be in a file that is on its way. What fetching fails of is raised,
        as no damage; RuntimeError where the epoch is left meanwhile."""
        while self._mapped.arrival is not None and not self._mapped.arrival.wait(samples, _LOOK):
            if rest.is_left:
                raise RuntimeError("the epoch was left")

    def _one_by_one(self, workers: list, rest: Rest, samples, keys, targets: list) -> list[tuple]:
        """The same where one of them is damaged."""
        damaged, population = [], rest.population
        # Another one of the subset that is read, not of the file
        count = self.num_samples if population is None else len(population)
        for row in range(len(samples)):

            def make(sample: int, row=row) -> None:
                one, key = np.array([sample]), keys[row : row + 1]
                self._wait_for(one, rest)
                self._read(workers, one, key, [target[row : row + 1] for target in targets], self._draw(one, key))

            try:
                make(samples[row])
            except DamagedSample as error:
                damaged.append((row, error.with_traceback(None)))  # it would keep this frame, and all in it
                if self.task.on_error == SUBSTITUTE:
                    of = make if population is None else lambda place, make=make: make(int(population[place]))
                    found = read_substitute(of, keys[row], count, (DamagedSample,))
                    if found is None:
                        raise no_substitute(f"sample {samples[row]}", self.task.dataset) from None
                    samples[row] = found[0] if population is None else population[found[0]]
        return damaged
