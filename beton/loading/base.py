"""What every pipeline is: batches of a data set, epoch by epoch. Loader is one, and so is each file in pipelines/."""

from __future__ import annotations

import atexit
import os
import weakref
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, ClassVar

import numpy as np

from beton.errors import DamagedSample, UserError, without_secrets
from beton.loading.cache import Pages, Window
from beton.loading.damage import POLICIES, RAISE, SKIP, LeftOut
from beton.loading.task import Task
from beton.loading.times import Times

_all_running: weakref.WeakSet = weakref.WeakSet()  # epochs of all pipelines


@atexit.register
def _close_all() -> None:
    """A script may end within an epoch: its threads must end before the interpreter does."""
    for batches in list(_all_running):
        with suppress(ValueError):  # another thread is within it
            batches.close()


class Pipeline:
    """Base class: it has the order, the epochs, the copy to the device and the damaged samples.

    A subclass says what it `needs` (modules and the packages that bring them; it imports them in its methods), what it
    `reads` ("beton", "photos": a folder with one folder for each class, or "any"), which `on_error` it knows,
    whether it `verifies` checksums, and whether it `is_ceiling`: loads nothing, so that its speed means something only
    in training. It implements open() and read(), and release() if it holds something.

    `num_samples` (of the whole data set), `classes` (names), `left_out` (damaged samples of the epoch so far, and why),
    `multi_label`: labels are N x classes, floats of 0..1, and not N, int64.
    """

    needs: ClassVar[dict[str, str]] = {}
    reads: ClassVar[str] = "beton"
    on_error: ClassVar[tuple[str, ...]] = (RAISE,)
    verifies: ClassVar[bool] = False
    worker_kind: ClassVar[str] = "threads"
    is_ceiling: ClassVar[bool] = False
    times: Times | None = None  # where its threads spend their time, if the task is `timed` and it can tell
    multi_label: bool = False

    num_samples: int
    classes: list[str]

    def __init__(self, task: Task):
        _check(task)
        self.task, self.epoch, self.left_out = task, 0, LeftOut()
        self.Batch = namedtuple("Batch", task.columns or (), rename=True)
        self._running, self._closed = weakref.WeakSet(), False
        # Called when a batch is on the host, before the device waits for its copy: for a clock that tells these apart
        self.arrived: Callable[[], None] | None = None
        self.open()
        self._length = task.batches(self.num_samples)

    # What a subclass implements

    def open(self) -> None:
        """Open self.task.dataset; set `num_samples` and `classes`. Raises UserError."""
        raise NotImplementedError

    def read(self, epoch: int, samples: np.ndarray, keys: np.ndarray, start: int) -> Iterator[tuple]:
        """A generator of the batches on the host, tuples of tensors in the order of task.columns.

        `samples` (int64) and `keys` (uint64) are those of the whole epoch; batches before `start` are not yielded.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Let go of what open() has opened."""

    def pages(self) -> Pages | None:
        """Where in its file each sample lies, where reading in sequence is faster."""
        return None

    @property
    def window(self) -> Window | None:
        """How an epoch is mixed (cache.py), where that is not at random."""
        return self.task.window(self.num_samples, self.pages())

    def groups(self, epoch: int) -> np.ndarray | None:
        """The group of each sample (int64), where an epoch has these one after another."""
        return None

    def finish(self) -> list[Any] | None:
        """What is left to do on a GPU for each column of a batch (to_device.py); None for nothing."""
        return None

    def batch_of(self, columns: tuple) -> Any:
        """What is handed out of the tuple of a batch's columns."""
        return self.Batch._make(columns)

    # What it gives

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple]:
        """The batches of an epoch from batch `start` on, on task.device. Leaving it early ends its threads.

        Images are N x C x H x W in channels_last memory format, normalised, of task.dtype (uint8 where the stages have
        no normalize); numbers are int64, N. A batch stays as it is for as long as it is held.
        """
        if self._closed:
            raise RuntimeError(f"the pipeline of {without_secrets(self.task.dataset)} is closed")
        batches = self._batches(epoch, start)
        self._running.add(batches)
        _all_running.add(batches)
        return batches

    def _batches(self, epoch: int, start: int) -> Iterator[tuple]:
        samples, keys = self.order(epoch)
        self.left_out.clear()
        process = os.getpid()
        with closing(self.read(epoch, samples, keys, start)) as batches:
            if not self.on_gpu:
                yield from map(self.batch_of, _only_in(process, batches))
                return
            from beton.loading.to_device import to_device

            with closing(to_device(batches, self.task, self.finish(), self.arrived)) as copied:
                yield from map(self.batch_of, _only_in(process, copied))

    def __iter__(self) -> Iterator[tuple]:
        """The batches of the next epoch: of `epoch`, which then counts one more."""
        self.epoch += 1
        return self.batches(self.epoch - 1)

    def __len__(self) -> int:
        """Batches of this rank in an epoch; where they are not the same number in all, in the one that comes next."""
        if self.task.sampling is not None and self.task.sampling.is_ordered:
            return self.task.batches(self.num_samples, self.epoch)
        return self._length

    def order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """This rank's samples of an epoch (int64) and their keys (uint64)."""
        # With skip, what would be dropped takes the place of what is damaged
        drop_last = self.task.drop_last and self.task.on_error != SKIP
        return self.task.order(self.num_samples, epoch, self.pages(), drop_last, self.groups(epoch))

    def samples(self, epoch: int, batch: int) -> np.ndarray:
        """The samples (int64) of a batch as the order has them: none is left out or replaced by `on_error`."""
        samples, _ = self.task.order(self.num_samples, epoch, self.pages(), groups=self.groups(epoch))
        return samples[batch * self.task.batch_size : (batch + 1) * self.task.batch_size]

    def damaged(self, error: DamagedSample, replaced: bool) -> None:
        """Do with a damaged sample what `on_error` says: raise it, or note it. `replaced`: another has its row."""
        if self.task.on_error == RAISE:
            raise error
        self.left_out.add(error, "replaced by another sample" if replaced else "left out")

    @property
    def on_gpu(self) -> bool:
        """Whether batches go to a CUDA device."""
        return str(self.task.device).startswith("cuda")

    @property
    def description(self) -> str:
        """How it runs, for the log."""
        return self.task.describe_workers(self.worker_kind)

    def close(self) -> None:
        """End epochs that were left early but are still held, and let go of the data set."""
        for batches in list(self._running):
            batches.close()
        self._closed = True
        self.release()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _only_in(process: int, batches: Iterator[tuple]) -> Iterator[tuple]:
    """The batches; a RuntimeError in a forked child, where the threads that make them do not exist."""
    while True:
        if os.getpid() != process:
            raise RuntimeError("an epoch cannot be continued in a forked process; begin one there with batches()")
        try:
            yield next(batches)
        except StopIteration:
            return


def _check(task: Task) -> None:
    if task.on_error not in POLICIES:
        raise UserError(f"`on_error`={task.on_error!r} is none of {', '.join(POLICIES)}", "give one of these")
    if task.cache_gb is not None and not task.cache_gb > 0:
        raise UserError(f"`cache_gb`={task.cache_gb!r} is not a number above 0", "give the memory for it, in GB")
    if task.cache_gb is not None and (task.in_memory or not task.is_shuffled):
        what = f"`cache_gb`={task.cache_gb:g} is for shuffled data sets that do not fit into memory"
        raise UserError(what, "set `in_memory`=0, or leave it out" if task.in_memory else "leave it out")
    for name, value in (("batch_size", task.batch_size), ("workers", task.workers), ("repeats", task.repeats)):
        if not isinstance(value, int) or value < 1:
            raise UserError(f"`{name}`={value!r} is not a whole number from 1 on", "give one")
    if not 0 <= task.rank < task.world_size:
        raise UserError(f"`rank`={task.rank} is not from 0 to {task.world_size - 1}", "give the process's own")
    if task.on_error == SKIP and task.drop_last and task.world_size > 1:
        raise UserError(
            "with `on_error`='skip' the ranks would not make the same number of steps",
            "set `on_error`='substitute', or 'raise'",
        )
