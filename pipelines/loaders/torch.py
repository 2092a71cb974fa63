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

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import Compose, ConvertImageDtype, PILToTensor

from pipelines import stages
from pipelines.decode import UNREADABLE, to_rgb
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
from pipelines.sources.imagefolder import open_source

needs = {"torchvision": "torchvision"}
reads = "photos"
on_error = ("raise", "skip", "substitute")
_TO_DO = "mend or remove the photo, or set data.on_error=substitute"


def open_loader(task: Task) -> "Loader":
    """Open a photo folder; raises UserError when the folder or the task cannot be used."""
    if task.on_error == "skip" and task.drop_last:
        raise UserError("the loader 'torch' cannot fill up a batch", "set data.on_error=substitute, or raise")
    return Loader(task)


class _Photos(Dataset):
    """(image, label, damaged) of photo `index` with the augmentations that its key stands for.

    `damaged`: nothing, or (index, why) if it cannot be read. Then the image is that of a `substitute`, or None where
    none can be read either. Not an exception: the parent would get it with the worker's traceback.
    """

    def __init__(self, folder: str, transform, substitute: bool):
        self.source, self.transform = open_source(folder, "train"), transform
        self.attempts = 1 + SUBSTITUTES * substitute

    def __getitem__(self, index_and_key: tuple[int, int]):
        index, key = index_and_key
        image, damaged = None, []
        while image is None and len(damaged) < self.attempts:
            if damaged:
                index = substitute_of(key, len(damaged) - 1, len(self.source))
            try:
                image = to_rgb(self.source.read(index))
            except UNREADABLE as error:
                damaged.append((index, str(error)))
        if image is None:
            return None, 0, damaged[:1]
        # In a worker process: its global generators are nobody else's. timm draws from Python's
        torch.manual_seed(key >> 1)
        random.seed(key >> 1)
        try:
            return self.transform(image), self.source.label(index), damaged[:1]
        except Exception as error:
            raise RuntimeError(f"a stage failed ({error!r}) on {self.source.name(index)}") from error


class _Epoch(Sampler):
    """(index, key) of the samples of a rank, for the epoch that is set."""

    def __init__(self, samples: int, task: Task):
        self.samples, self.task, self.epoch, self.start = samples, task, task.epoch, 0

    def __iter__(self):
        samples, keys = epoch_samples(self.task, self.samples, self.epoch)
        rest = slice(self.start * self.task.batch_size, None)
        return zip(samples[rest].tolist(), keys[rest].tolist(), strict=True)

    def __len__(self) -> int:
        if self.task.drop_last:
            return batches_in_epoch(self.task, self.samples) * self.task.batch_size
        return len(range(self.task.rank, self.samples, self.task.world_size))


def _collate(samples: list):
    """Stack images into shared memory, in channels_last, without a further copy: (images, labels, damaged).

    `damaged`: (index, why, whether another photo is in its place).
    """
    damaged = [(*photo, image is not None) for image, _, photos in samples for photo in photos]
    images = [image for image, _, _ in samples if image is not None]
    labels = torch.tensor([label for image, label, _ in samples if image is not None])
    if not images:
        return None, labels, damaged
    channels, height, width = images[0].shape
    count = len(images) * images[0].numel()
    storage = images[0].untyped_storage()._new_shared(count * images[0].element_size())
    batch = torch.empty(0, dtype=images[0].dtype).set_(storage, 0, (len(images), height, width, channels))
    batch = batch.permute(0, 3, 1, 2)
    return torch.stack(images, out=batch), labels, damaged


def _heed_only_the_parent(worker: int) -> None:
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


class Loader:
    """See pipelines/loaders/__init__.py for what every loader has."""

    def __init__(self, task: Task):
        self.task = task
        parsed = stages.parse(task.stages)
        transforms = [stage.reference() for stage in parsed]
        self._on_gpu = torch.device(task.device).type == "cuda"
        if all(stage.kind != stages.VALUES for stage in parsed):
            transforms.append(PILToTensor())
        elif not self._on_gpu:
            transforms.append(ConvertImageDtype(task.dtype))  # to_device does it for a GPU
        photos = _Photos(task.dataset, Compose(transforms), task.on_error == "substitute")
        self.left_out = LeftOut()
        self.num_samples, self.classes = len(photos.source), photos.source.classes
        self._sampler = _Epoch(self.num_samples, task)
        self._loader = DataLoader(
            photos,
            batch_size=task.batch_size,
            sampler=self._sampler,
            num_workers=usable_workers(task),
            drop_last=task.drop_last,
            collate_fn=_collate,
            pin_memory=self._on_gpu,
            persistent_workers=True,
            worker_init_fn=_heed_only_the_parent,
            generator=torch.Generator(),  # or it would draw from the caller's
        )
        self._next_epoch, self._start = task.epoch, task.start
        self._length = batches_in_epoch(task, self.num_samples)

    @property
    def description(self) -> str:
        """How it runs, for the log."""
        return describe_workers(self.task, "processes")

    def __len__(self) -> int:
        return self._length

    def __iter__(self):
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        start, self._start = self._start, 0
        batches = self._batches(epoch, start)
        return to_device(batches, self.task) if self._on_gpu else batches

    def samples(self, epoch: int, batch: int) -> np.ndarray:
        """The samples of a batch, for error messages."""
        return batch_samples(self.task, self.num_samples, epoch, batch)

    def _batches(self, epoch: int, start: int):
        self._sampler.epoch, self._sampler.start = epoch, start
        self.left_out.clear()
        for images, labels, damaged in self._loader:
            for photo in damaged:
                self._note(*photo)
            if images is not None:
                yield images, labels

    def _note(self, index: int, why: str, replaced: bool) -> None:
        """Do with a photo that cannot be read what task.on_error says."""
        name = self._loader.dataset.source.name(index)
        error = DamagedSample(self.task.dataset, index, name, why, _TO_DO)
        if self.task.on_error == "raise":
            raise error
        if self.task.on_error == "substitute" and not replaced:
            what = f"{SUBSTITUTES} photos that could replace {name} cannot be read either"
            raise UserError(what, "mend or remove the photos")
        self.left_out.add(error, "replaced by another sample" if replaced else "left out")

    def close(self) -> None:
        """End the worker processes."""
        iterator = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()
            self._loader._iterator = None
