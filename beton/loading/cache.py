"""A file larger than memory: how many of its pages are mixed at a time, and which of them are in memory when."""

from __future__ import annotations

import math
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from beton import system
from beton.errors import UserError

if TYPE_CHECKING:
    from beton.format.mapped import MappedFile
    from beton.loading.task import Task

# Batches that are in work (reading.py), and those whose pages are asked for before they are
AHEAD, LEAD = 3, 2
# At most so many lanes, each of at least so many pages of the cache and of the file; any number of ranks that divides
# the number of lanes reads the same batches
_MOST_LANES, _PAGES_OF_CACHE, _PAGES_OF_FILE = 64, 8, 8
# Pages that are mixed at a time for each photo of a batch, where no cache_gb is given: FFCV's 2 * batch_size
_PER_PHOTO = 2
# Photos of a page may be fewer than the mean
_UNEVEN = 2


@dataclass(frozen=True)
class Pages:
    """Where samples lie: `of_sample` (int64) is the page of each, `count` the number of pages, `size` their bytes."""

    of_sample: np.ndarray
    count: int
    size: int


class Window(NamedTuple):
    """The order of an epoch is that of `lanes` in turn, each of which mixes `pages` at a time (orders.py)."""

    lanes: int
    pages: int


def window_of(task: Task, num_samples: int, pages: Pages) -> Window | None:
    """The window in which an epoch of `num_samples` is mixed; None where it is to be all of the file.

    Depends on the batch of all ranks and the memory of all machines; on the number of ranks only where that does not
    divide the lanes. Raises UserError where `cache_gb` is too little.
    """
    batch, ranks, moving = task.batch_size * task.world_size, task.world_size, 0
    machines = -(-ranks // system.ranks_here(ranks))
    if task.cache_gb is None:
        total = _PER_PHOTO * batch
        fits = total >= pages.count
    else:
        total = int(machines * task.cache_gb * 1e9 // pages.size)
        fits = task.cache_gb * 1e9 >= pages.count * pages.size
        # Pages that come before the window and go behind it
        moving = _UNEVEN * batch * (AHEAD + 1 + LEAD) * pages.count / max(num_samples, 1)
    if fits or pages.count < 2:
        return None
    few = max(1, min(_MOST_LANES, total // _PAGES_OF_CACHE, pages.count // _PAGES_OF_FILE))
    lanes = math.lcm(max(n for n in range(1, few + 1) if batch % n == 0), ranks)
    for count in (lanes, ranks):
        spare = math.ceil(moving / count) + 1 if moving else 0
        if total // count - spare >= 1:
            return Window(count, total // count - spare)
    if task.cache_gb is None:
        return Window(ranks, 1)
    needed = (spare + 1) * ranks * pages.size / machines / 1e9
    what = f"`cache_gb`={task.cache_gb:g} is too little to mix {task.dataset} on {ranks} rank{'s' * (ranks > 1)}"
    raise UserError(what, f"give at least {math.ceil(needed * 1000) / 1000:g}, or a smaller `batch_size`")


class Schedule:
    """When the pages of a rank's epoch are needed. Positions count the samples in the order in which they are read.

    `ids` are the pages, `first` and `last` the positions of their first and last sample, `start` and `stop` the bytes
    of the file that those samples are in, whole pages of the system.
    """

    def __init__(self, samples: np.ndarray, pages: Pages, starts: np.ndarray, stops: np.ndarray, begin: int = 0):
        self.ids, which = np.unique(pages.of_sample[samples[begin:]], return_inverse=True)
        positions = np.arange(begin, len(samples))
        self.first, self.last = np.empty(len(self.ids), np.int64), np.empty(len(self.ids), np.int64)
        self.first[which[::-1]], self.last[which] = positions[::-1], positions
        low, high = self.ids * pages.size, (self.ids + 1) * pages.size
        self.start, self.stop = high.copy(), low.copy()
        np.minimum.at(self.start, which, starts[samples[begin:]])
        np.maximum.at(self.stop, which, stops[samples[begin:]])
        of_system = system.PAGE
        self.start = np.maximum(self.start, low) // of_system * of_system
        self.stop = -(-np.minimum(self.stop, high) // of_system) * of_system

    def peak(self, batch_size: int, lead: int) -> int:
        """The most bytes that are in memory at a time, where pages are asked for `lead` batches ahead of the work."""
        sizes = self.stop - self.start
        coming, going = np.argsort(self.first), np.argsort(self.last)
        come, gone = (np.concatenate([[0], np.cumsum(sizes[order])]) for order in (coming, going))
        batch = np.unique(self.last // batch_size)  # while it is waited for
        asked = np.searchsorted(self.first[coming], (batch + AHEAD + 1 + lead) * batch_size)
        return int((come[asked] - gone[np.searchsorted(self.last[going], batch * batch_size)]).max(initial=0))


def check_memory(schedule: Schedule, task: Task) -> None:
    """Raise UserError where an epoch needs more than `cache_gb`, though nothing is asked for ahead of the work."""
    if (needed := _needed(schedule, task, 0)) > task.cache_gb:
        why = "whose pages hold unequal numbers of samples"
        what = f"`cache_gb`={task.cache_gb:g} is too little for {task.dataset}, {why}"
        raise UserError(what, f"give at least {math.ceil(needed * 1000) / 1000:g}, or a smaller `batch_size`")


def _needed(schedule: Schedule, task: Task, lead: int) -> float:
    """GB that all ranks of a machine take, if they take what this one does."""
    return schedule.peak(task.batch_size, lead) * system.ranks_here(task.world_size) / 1e9


def _lead(schedule: Schedule, task: Task) -> int:
    """How many batches ahead of the work the pages are asked for: LEAD, or fewer where there is not the memory.

    An epoch that needs more than epoch 0, for which check_memory() was asked, goes on, with a note: an error would come
    in mid-training.
    """
    for lead in range(LEAD, -1, -1):
        needed = _needed(schedule, task, lead)
        if needed <= task.cache_gb:
            return lead
    print(f"note: this epoch takes {needed:.3g} GB of memory, more than `cache_gb`={task.cache_gb:g}", file=sys.stderr)
    return 0


class Cache:
    """Has the pages of an epoch read as a whole, shortly before they are needed, and let go of when they have been
    used; a context of one epoch. The positions that it is told rise.
    """

    def __init__(self, mapped: MappedFile, schedule: Schedule, task: Task):
        self._mapped, self._schedule, self._lead = mapped, schedule, _lead(schedule, task) * task.batch_size
        self._coming, self._going = np.argsort(schedule.first), np.argsort(schedule.last)
        self._firsts, self._lasts = schedule.first[self._coming], schedule.last[self._going]
        self._asked = self._released = 0
        self._fetched: deque[tuple[int, Future]] = deque()  # position, and its page
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="beton-cache")

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        came = np.zeros(len(self._coming), np.bool_)
        came[self._coming[: self._asked]] = True
        for page in self._going[self._released :]:
            if came[page]:
                self._release(page)

    def need(self, position: int) -> None:
        """The samples before this position are read next: returns when the system has been asked for their pages."""
        wanted = int(np.searchsorted(self._firsts, position + self._lead))
        for place in range(self._asked, wanted):
            fetched = self._thread.submit(self._fetch, self._coming[place])
            self._fetched.append((int(self._firsts[place]), fetched))
        self._asked = max(self._asked, wanted)
        while self._fetched and self._fetched[0][0] < position:
            self._fetched.popleft()[1].result()

    def used(self, position: int) -> None:
        """The samples before this position have been read."""
        done = int(np.searchsorted(self._lasts, position))
        for page in self._going[self._released : done]:
            self._thread.submit(self._release, page)
        self._released = max(self._released, done)

    def _fetch(self, page: int) -> None:
        self._mapped.fetch(int(self._schedule.start[page]), int(self._schedule.stop[page]))

    def _release(self, page: int) -> None:
        self._mapped.release(int(self._schedule.start[page]), int(self._schedule.stop[page]))
