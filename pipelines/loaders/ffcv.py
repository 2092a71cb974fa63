"""The FFCV loader: batches from a .beton through JIT stages, in threads of this process.

It reads FFCV's files, with threads and kernels of its own: FFCV 1.0.2's loader hangs when a stage fails,
overwrites batches that are still held, leaks threads when an epoch is left early, draws its augmentations
from generators that cannot be seeded, decodes whole photos to use half of them, and walks over every batch
once for each stage. Here the crop, a flip behind it and normalize are one pass (pipelines/kernels).
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import torch

from pipelines import stages
from pipelines.errors import UserError
from pipelines.feed import to_device
from pipelines.loaders import Task, batches_in_epoch, describe_workers, epoch_samples, usable_workers
from pipelines.photos import Photos, close_scratch, open_scratch
from pipelines.slots import SlotPool

needs = {}
reads = "beton"

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


class Loader:
    """See pipelines/loaders/__init__.py for what every loader has."""

    def __init__(self, task: Task):
        self.task = task
        self._photos = Photos(task.dataset)
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
        self._epoch = task.epoch
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
        batches = self._batches(epoch)
        return to_device(batches, self.task, self._on_gpu_normalize) if self._on_gpu else batches

    def close(self) -> None:
        """Nothing outlives an epoch; other loaders have something to close."""

    def _batches(self, epoch: int):
        """Generator of the batches of an epoch; leaving it early ends its threads."""
        order, keys = epoch_samples(self.task, self.num_samples, epoch, self._photos.pages)
        idle = SimpleQueue()
        workers = [_Worker(self._crop.size) for _ in range(self._workers)]
        for worker in workers:
            idle.put(worker)
        threads = ThreadPoolExecutor(self._workers, thread_name_prefix="ffcv-loader")
        waiting: deque[tuple] = deque()
        try:
            for start in range(0, len(order), self.task.batch_size):
                batch = slice(start, min(start + self.task.batch_size, len(order)))
                waiting.append(self._submit(threads, idle, order[batch], keys[batch]))
                if len(waiting) > _AHEAD:
                    yield self._finish(*waiting.popleft())
            while waiting:
                yield self._finish(*waiting.popleft())
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
            for _, slot, _ in waiting:
                self._slots.give_back(slot)
            for worker in workers:
                close_scratch(worker.scratch)

    def _submit(self, threads, idle, samples: np.ndarray, keys: np.ndarray):
        """Hand a batch to the threads in chunks; returns what _finish needs."""
        if not self.task.in_memory:
            self._photos.prefetch(samples)
        slot = self._slots.take()
        chunks = [slice(at, min(at + _CHUNK, len(samples))) for at in range(0, len(samples), _CHUNK)]
        futures = [threads.submit(self._fill, idle, samples[c], keys[c], slot[c]) for c in chunks]
        return samples, slot, futures

    def _finish(self, samples: np.ndarray, slot: np.ndarray, futures: list[Future]):
        """Wait for a batch; an exception of one of its threads is raised here."""
        for future in futures:
            future.result()
        images = self._slots.hand_out(slot, len(samples))
        if images.dtype == torch.uint16:
            images = images.view(self.task.dtype)
        return images.permute(0, 3, 1, 2), self._photos.labels[samples]

    def _fill(self, idle, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Run all stages for a few samples. There are as many workers as threads, so one is always idle."""
        worker = idle.get()
        try:
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
        except UserError:
            raise
        except Exception as error:
            names = ", ".join(map(str, samples))
            raise RuntimeError(f"a stage failed ({error!r}) on the samples {names} of {self.task.dataset}") from error
        finally:
            idle.put(worker)
