"""The standard loader: a photo folder through Pillow, torchvision transforms and a DataLoader.

As PyTorch's ImageNet example does it, with what its documentation recommends: worker processes that
stay from epoch to epoch, and pinned memory for a GPU. Given a .beton's order and seeds, so that the
same epoch holds the same photos in the same order.
"""

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from beton.errors import DamagedSample, UserError
from beton.format.photo_files import UNREADABLE, to_rgb
from beton.loading.base import Pipeline
from beton.loading.damage import POLICIES, SKIP, SUBSTITUTE, no_substitute, read_substitute
from beton.loading.task import Task
from beton.sources.imagefolder import open_source
from beton.stages.base import Normalize
from beton.stages.parse import parse

_TO_DO = "correct or remove the photo, or set `on_error`='substitute'"


class _Photos(Dataset):
    """(image, label, damaged) of photo `index` with the augmentations that its key stands for.

    `damaged`: nothing, or (index, why) if it cannot be read. Then the image is that of a `substitute`, or None where
    none can be read either. Not an exception: the parent would get it with the worker's traceback.
    """

    def __init__(self, source, decode: Callable, transform: Callable, substitute: bool):
        self.source, self.decode, self.transform, self.substitute = source, decode, transform, substitute

    def _read(self, index: int):
        data, label = self.source.read(index)
        return self.decode(data), label

    def __getitem__(self, index_and_key: tuple[int, int]):
        index, key = index_and_key
        found, damaged = None, []
        try:
            found = index, self._read(index)
        except UNREADABLE as error:
            damaged.append((index, str(error)))
            if self.substitute:
                found = read_substitute(self._read, key, len(self.source), UNREADABLE)
        if found is None:
            return None, 0, damaged
        index, (image, label) = found
        # In a worker process: its global generators are nobody else's. timm draws from Python's
        torch.default_generator.manual_seed(key >> 1)  # torch.manual_seed takes a stack trace for CUDA each time
        random.seed(key >> 1)
        try:
            return self.transform(image), label, damaged
        except Exception as error:
            raise RuntimeError(f"a stage failed ({error!r}) on {self.source.name(index)}") from error


class _Order:
    """A sampler of (index, key); `rest` are those of the epoch that is about to be read."""

    def __init__(self, length: int):
        self._length, self.rest = length, []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.rest)

    def __len__(self) -> int:
        return self._length


def _collate(samples: list):
    """Stack images into shared memory, in channels_last, without a further copy: (images, labels, damaged).

    `damaged`: (index, why, whether another photo is in its place).
    """
    damaged = [(*photo, image is not None) for image, _, photos in samples for photo in photos]
    images = [image for image, _, _ in samples if image is not None]
    labels = torch.tensor([label for image, label, _ in samples if image is not None])
    return stack(images) if images else None, labels, damaged


def stack(images: list[torch.Tensor]) -> torch.Tensor:
    """Images (C x H x W) as a batch N x C x H x W in channels_last, in shared memory."""
    channels, height, width = images[0].shape
    count = len(images) * images[0].numel()
    storage = images[0].untyped_storage()._new_shared(count * images[0].element_size())
    batch = torch.empty(0, dtype=images[0].dtype).set_(storage, 0, (len(images), height, width, channels))
    return torch.stack(images, out=batch.permute(0, 3, 1, 2))


def transform_of(task: Task) -> Callable:
    """The stages' references, which take a PIL image: a tensor C x H x W, uint8 where nothing normalises."""
    from torchvision.transforms import Compose, ConvertImageDtype, PILToTensor

    stages = parse(task.stages["image"])
    transforms = [stage.reference() for stage in stages]
    if not any(isinstance(stage, Normalize) for stage in stages):
        transforms.append(PILToTensor())
    elif not str(task.device).startswith("cuda"):
        transforms.append(ConvertImageDtype(task.float_dtype))  # on a GPU, after the copy
    return Compose(transforms)


def obey_only_the_parent(worker: int) -> None:
    """Leave signals to the parent.

    A terminal's Ctrl-C and a scheduler's SIGTERM reach all processes. Without its workers the parent could not
    finish its step and write a checkpoint; it ends them itself.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_the_parent_says, daemon=True).start()


def _end_when_the_parent_says() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != multiprocessing.parent_process().pid:
        pass
    os._exit(0)


class Torch(Pipeline):
    """torch's DataLoader."""

    needs = {"torchvision": "torchvision"}
    reads = "photos"
    on_error = POLICIES
    worker_kind = "processes"

    def open(self) -> None:
        """Open a photo folder; raises UserError when the folder or the task cannot be used."""
        task = self.task
        if task.on_error == SKIP and task.drop_last:
            what = f"the pipeline '{type(self).__name__.lower()}' cannot fill up a batch"
            raise UserError(what, "set `on_error`='substitute', or 'raise'")
        photos = _Photos(self.source(), self.decode, self.transform(), task.on_error == SUBSTITUTE)
        self._source, self.num_samples, self.classes = photos.source, len(photos.source), photos.source.classes
        self._order = _Order(len(self.order(0)[0]))
        self._loader = DataLoader(
            photos,
            batch_size=task.batch_size,
            sampler=self._order,
            num_workers=task.usable_workers,
            drop_last=task.drop_last,
            collate_fn=_collate,
            pin_memory=self.on_gpu,
            persistent_workers=True,
            worker_init_fn=obey_only_the_parent,
            generator=torch.Generator(),  # or it would draw from the caller's
        )

    # What another way to decode and transform changes

    def source(self):
        """The samples: read(index) is (bytes, label)."""
        return open_source(self.task.dataset, "train")

    decode = staticmethod(to_rgb)

    def transform(self) -> Callable:
        """From what decode() returns to a tensor C x H x W."""
        return transform_of(self.task)

    def read(self, epoch: int, samples: np.ndarray, keys: np.ndarray, start: int) -> Iterator[tuple]:
        """The batches of an epoch from batch `start` on; a RuntimeError where another epoch has begun since."""
        rest = slice(start * self.task.batch_size, None)
        self._order.rest = list(zip(samples[rest].tolist(), keys[rest].tolist(), strict=True))
        for images, labels, damaged in self._alone(iter(self._loader)):
            for index, why, replaced in damaged:
                self._note(index, why, replaced)
            if images is not None:
                yield images, labels

    def _alone(self, batches: Iterator) -> Iterator:
        """The batches; the worker processes serve one epoch at a time, and would mix two."""
        mine = self._reading = object()
        while True:
            if self._reading is not mine:
                raise RuntimeError("another epoch of this loader has begun; read one at a time, or open two loaders")
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch

    def _note(self, index: int, why: str, replaced: bool) -> None:
        name = self._source.name(index)
        if self.task.on_error == SUBSTITUTE and not replaced:
            raise no_substitute(name, self.task.dataset)
        self.damaged(DamagedSample(self.task.dataset, index, "image", f"{name}: {why}", _TO_DO), replaced)

    def release(self) -> None:
        """End the worker processes."""
        end_workers(self._loader)


def end_workers(loader: DataLoader) -> None:
    """End the worker processes of a DataLoader."""
    if loader._iterator is not None:
        loader._iterator._shutdown_workers()
        loader._iterator = None


PIPELINE = Torch
