"""The FFCV loader: batches from a .beton through JIT stages, in threads of this process.

It reads FFCV's files, with threads and kernels of its own: FFCV 1.0.2's loader hangs when a stage fails,
overwrites batches that are still held, leaks threads when an epoch is left early, draws its augmentations
from generators that cannot be seeded, decodes whole photos to use half of them, and walks over every batch
once for each stage. Here the crop, a flip behind it and normalize are one pass (pipelines/kernels).
"""

import dataclasses
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
import torch

from pipelines import stages
from pipelines.errors import DamagedSample, UserError
from pipelines.feed import to_device
from pipelines.loaders import (
    SUBSTITUTES,
    LeftOut,
    Task,
    batch_samples,
    batches_in_epoch,
    describe_workers,
    epoch_samples,
    substitute_of,
    usable_workers,
)
from pipelines.photos import Photos, close_scratch, open_scratch
from pipelines.slots import SlotPool

needs = {}
reads = "beton"
on_error = ("raise", "skip", "substitute")
verifies = True

# Batches that are prepared while one is used (FFCV's batches_ahead).
_AHEAD = 3
# Images that a thread takes at a time: few enough to stay in its cache, enough to hide Python's cost.
_CHUNK = 8


def open_loader(task: Task) -> "Loader":
    """Open a .beton; raises UserError when the file or the task cannot be used."""
    return Loader(task)


class _Worker:
    """What one thread needs for itself: the kernels' memory, and room for a chunk of images."""

    def __init__(self, size: int):
        self.scratch = open_scratch()
        self.images = np.empty((_CHUNK, size, size, 3), np.uint8)


class _Rest:
    """What of an epoch's order no batch has yet: samples and keys."""

    def __init__(self, samples: np.ndarray, keys: np.ndarray, start: int):
        self._samples, self._keys, self._start, self._end = samples, keys, start, len(samples)

    def __len__(self) -> int:
        return self._end - self._start

    def take(self, count: int) -> tuple[slice, np.ndarray, np.ndarray]:
        """The next `count`, or fewer at the end: their place, samples and keys."""
        place = slice(self._start, min(self._start + count, self._end))
        self._start = place.stop
        return place, self._samples[place].copy(), self._keys[place]

    def put_back(self, place: slice) -> None:
        """Only what was taken last, and only when nothing is left: what came after it is used."""
        self._start, self._end = place.start, place.stop


@dataclass
class _Batch:
    """A batch in the making; `samples` are what its rows hold in the end."""

    place: slice
    samples: np.ndarray
    slot: np.ndarray
    futures: list[Future]


class Loader:
    """See pipelines/loaders/__init__.py for what every loader has."""

    def __init__(self, task: Task):
        self.task = task
        self._photos = Photos(task.dataset, task.verify)
        self.left_out = LeftOut()
        self._running = weakref.WeakSet()  # epochs
        self.num_samples, self.classes = self._photos.num_samples, self._photos.classes
        self._stages = stages.parse(task.stages)
        self._crop = self._stages[0]
        self._normalize = next((s for s in self._stages if s.kind == stages.VALUES), None)
        self._image_stages = [s for s in self._stages if s.kind == stages.IMAGE]
        self._number_stages = [s for s in self._stages if s.kind == stages.NUMBERS]
        # On a GPU the bytes are sent (a quarter of the traffic) and normalised there, unless a stage
        # of the threads needs the numbers
        self._on_gpu = torch.device(task.device).type == "cuda"
        self._on_gpu_normalize = self._normalize if self._on_gpu and not self._number_stages else None
        self._on_cpu_normalize = None if self._on_gpu_normalize else self._normalize
        # What the crop does in its own pass: a flip that follows it, and normalize where nothing is between
        self._mirror = None
        if self._image_stages and type(self._image_stages[0]).mirrors is not stages.Stage.mirrors:
            self._mirror = self._image_stages.pop(0)
        fused = self._on_cpu_normalize and not self._image_stages and task.dtype == torch.float32
        self._last_pass = None if fused else self._on_cpu_normalize
        self._scale_shift = self._on_cpu_normalize.scale_shift if fused else np.zeros(6, np.float32)
        self._workers = usable_workers(task)
        self._epoch, self._start = task.epoch, task.start
        shape = (task.batch_size, self._crop.size, self._crop.size, 3)
        self._slots = SlotPool(shape, self._slot_dtype(), pinned=self._on_gpu)
        self._length = batches_in_epoch(task, self.num_samples)

    @property
    def description(self) -> str:
        """How it runs, for the log."""
        threads = describe_workers(self.task, "threads")
        if self._on_gpu_normalize is None:
            return threads
        return f"{threads}, normalize on the GPU by {self._on_gpu_normalize.on_device_by(self.task.dtype)}"

    def _slot_dtype(self) -> np.dtype:
        if self._on_cpu_normalize is None:
            return np.dtype(np.uint8)
        return np.dtype(np.float32) if self.task.dtype == torch.float32 else np.dtype(np.uint16)

    def __len__(self) -> int:
        return self._length

    def __iter__(self):
        epoch, self._epoch = self._epoch, self._epoch + 1
        start, self._start = self._start, 0
        batches = self._batches(epoch, start)
        self._running.add(batches)
        return to_device(batches, self.task, self._on_gpu_normalize) if self._on_gpu else batches

    def close(self) -> None:
        """End epochs that were left early but are still held, and let go of the file."""
        for batches in list(self._running):
            batches.close()
        self._photos.close()

    def samples(self, epoch: int, batch: int) -> np.ndarray:
        """The samples of a batch, for error messages."""
        return batch_samples(self.task, self.num_samples, epoch, batch, self._photos.pages)

    def _order(self, epoch: int, start: int) -> _Rest:
        task = self.task
        if task.on_error == "skip":  # what else is dropped takes the place of what is damaged
            task = dataclasses.replace(task, drop_last=False)
        return _Rest(*epoch_samples(task, self.num_samples, epoch, self._photos.pages), start * task.batch_size)

    def _batches(self, epoch: int, start: int):
        """Generator of the batches of an epoch from batch `start` on; leaving it early ends its threads."""
        # Which samples are left out shows only when they are read: then the batches before `start` are read too
        passed = start if self.task.on_error == "skip" else 0
        rest, idle = self._order(epoch, start - passed), SimpleQueue()
        self.left_out.clear()
        workers = [_Worker(self._crop.size) for _ in range(self._workers)]
        for worker in workers:
            idle.put(worker)
        threads = ThreadPoolExecutor(self._workers, thread_name_prefix="ffcv-loader")
        fewest = self.task.batch_size if self.task.drop_last else 1
        waiting: deque[_Batch] = deque()
        try:
            while True:
                while len(waiting) <= _AHEAD and len(rest) >= fewest:
                    waiting.append(self._submit(threads, idle, rest, self.task.batch_size, self._slots.take()))
                if not waiting:
                    return
                batch = waiting.popleft()
                damaged = self._wait(batch)
                if damaged and self.task.on_error == "skip":
                    self._fill_up(batch, damaged, lambda slot: self._next(threads, idle, rest, waiting, slot))
                if len(batch.samples) < fewest or passed:
                    passed = max(passed - 1, 0)
                    self._slots.give_back(batch.slot)
                    continue
                yield self._hand_out(batch)
                del batch
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            for batch in waiting:
                self._slots.give_back(batch.slot)
            for worker in workers:
                close_scratch(worker.scratch)

    def _submit(self, threads, idle, rest: _Rest, count: int, slot: np.ndarray) -> _Batch:
        """Hand the next `count` samples to the threads in chunks, to be put into `slot`."""
        place, samples, keys = rest.take(count)
        if not self.task.in_memory:
            self._photos.prefetch(samples)
        chunks = [slice(at, min(at + _CHUNK, len(samples))) for at in range(0, len(samples), _CHUNK)]
        futures = [threads.submit(self._fill, idle, samples[c], keys[c], slot[c]) for c in chunks]
        return _Batch(place, samples, slot, futures)

    def _wait(self, batch: _Batch) -> list[int]:
        """Rows that hold damaged samples (or had); an exception of one of its threads is raised here."""
        rows = []
        for start, future in zip(range(0, len(batch.samples), _CHUNK), batch.futures, strict=True):
            for row, error in future.result():
                rows.append(start + row)
                self.left_out.add(error, "left out" if self.task.on_error == "skip" else "replaced by another sample")
        return rows

    def _fill_up(self, batch: _Batch, damaged: list[int], following) -> None:
        """Put following samples into the rows of damaged ones; where there are no more, the batch becomes shorter."""
        good = np.ones(len(batch.samples), np.bool_)
        for row in damaged:
            sample = following(batch.slot[row : row + 1])
            good[row] = sample is not None
            batch.samples[row] = sample if good[row] else 0
        if not good.all():
            count = good.sum()
            batch.slot[:count], batch.samples = batch.slot[: len(good)][good], batch.samples[good]

    def _next(self, threads, idle, rest: _Rest, waiting: deque, slot: np.ndarray) -> int | None:
        """Put the next good sample that no batch has into slot (one image); at the end those of the last batch."""
        while len(rest) or waiting:
            if not len(rest):
                last = waiting.pop()
                for future in last.futures:
                    if not future.cancel():
                        future.exception()  # waits, for its memory is used again
                self._slots.give_back(last.slot)
                rest.put_back(last.place)
            one = self._submit(threads, idle, rest, 1, slot)
            if not self._wait(one):
                return int(one.samples[0])
        return None

    def _hand_out(self, batch: _Batch):
        images = self._slots.hand_out(batch.slot, len(batch.samples))
        if images.dtype == torch.uint16:
            images = images.view(self.task.dtype)
        return images.permute(0, 3, 1, 2), self._photos.labels[batch.samples]

    def _fill(self, idle, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> list[tuple]:
        """Run all stages for a few samples; returns (row, DamagedSample) of those that on_error has left out.

        There are as many workers as threads, so one is always idle.
        """
        worker = idle.get()
        try:
            return self._run_or_mend(worker, samples, keys, target)
        except UserError:
            raise
        except Exception as error:
            names = ", ".join(map(str, samples))
            what = f"a stage failed ({error!r}) on the samples {names} of {self.task.dataset} (field 'image')"
            raise RuntimeError(what) from error
        finally:
            idle.put(worker)

    def _run_or_mend(self, worker: _Worker, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> list[tuple]:
        try:
            self._run(worker, samples, keys, target)
            return []
        except DamagedSample:
            if self.task.on_error == "raise":
                raise
        damaged = []
        for row in range(len(samples)):
            one = slice(row, row + 1)
            try:
                self._run(worker, samples[one], keys[one], target[one])
            except DamagedSample as error:
                damaged.append((row, error.with_traceback(None)))  # it would keep this frame, and all in it
                if self.task.on_error == "substitute":
                    self._substitute(worker, samples[one], keys[one], target[one])
        return damaged

    def _substitute(self, worker: _Worker, sample: np.ndarray, key: np.ndarray, target: np.ndarray) -> None:
        """Put another sample in the place of one, in `sample` too."""
        damaged = int(sample[0])
        for attempt in range(SUBSTITUTES):
            sample[0] = substitute_of(key[0], attempt, self.num_samples)
            try:
                self._run(worker, sample, key, target)
                return
            except DamagedSample:
                continue
        raise UserError(
            f"{SUBSTITUTES} samples that could replace sample {damaged} of {self.task.dataset} are damaged too",
            "write the dataset again",
        )

    def _run(self, worker: _Worker, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """All stages for a few samples."""
        images = target if self._last_pass is None else worker.images[: len(samples)]
        heights, widths = self._photos.heights[samples], self._photos.widths[samples]
        boxes = self._crop.boxes(heights, widths, keys)
        windows = self._crop.windows(heights, widths, keys)
        mirrors = self._mirror.mirrors(keys) if self._mirror else np.zeros(len(keys), np.bool_)
        self._photos.cut(worker.scratch, samples, boxes, windows, mirrors, images, self._scale_shift)
        for stage in self._image_stages:
            stage.apply(images, keys)
        if self._last_pass is not None:
            self._last_pass.apply(images, target, self.task.dtype)
        for stage in self._number_stages:
            stage.apply(target, keys, self.task.dtype)
