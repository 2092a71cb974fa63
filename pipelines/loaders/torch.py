"""The standard loader: a photo folder through Pillow, torchvision transforms and a DataLoader.

As PyTorch's ImageNet example does it, with what its documentation recommends: worker processes that
stay from epoch to epoch, and pinned memory for a GPU. Given a .beton's order and seeds, so that the
same epoch holds the same photos in the same order.
"""

import random

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import Compose, ConvertImageDtype, PILToTensor

from pipelines import stages
from pipelines.decode import UNREADABLE, to_rgb
from pipelines.errors import DamagedSample
from pipelines.feed import to_device
from pipelines.loaders import Task, batches_in_epoch, describe_workers, epoch_samples, usable_workers
from pipelines.sources.imagefolder import open_source

needs = {"torchvision": "torchvision"}
reads = "photos"


def open_loader(task: Task) -> "Loader":
    """Open a photo folder; raises UserError when the folder or the task cannot be used."""
    return Loader(task)


class _Photos(Dataset):
    """Photo `index` with the augmentations that its key stands for."""

    def __init__(self, folder: str, transform):
        self.source, self.transform = open_source(folder, "train"), transform

    def __getitem__(self, index_and_key: tuple[int, int]):
        index, key = index_and_key
        try:
            image = to_rgb(self.source.read(index))
        except UNREADABLE as error:
            return index, str(error)
        # In a worker process: its global generators are nobody else's. timm draws from Python's
        torch.manual_seed(key)
        random.seed(key)
        try:
            return self.transform(image), self.source.label(index)
        except Exception as error:
            raise RuntimeError(f"a stage failed ({error!r}) on {self.source.name(index)}") from error


class _Epoch(Sampler):
    """(index, key) of the samples of a rank, for the epoch that is set."""

    def __init__(self, samples: int, task: Task):
        self.samples, self.task, self.epoch = samples, task, task.epoch

    def __iter__(self):
        samples, keys = epoch_samples(self.task, self.samples, self.epoch)
        return zip(samples.tolist(), (keys >> np.uint64(1)).tolist(), strict=True)

    def __len__(self) -> int:
        if self.task.drop_last:
            return batches_in_epoch(self.task, self.samples) * self.task.batch_size
        return len(range(self.task.rank, self.samples, self.task.world_size))


def _collate(samples: list):
    """Stack images into shared memory, in channels_last, without a further copy."""
    for first, second in samples:
        if isinstance(second, str):
            return first, second  # a photo that cannot be read; the loader raises it
    images = [image for image, _ in samples]
    labels = torch.tensor([label for _, label in samples])
    channels, height, width = images[0].shape
    count = len(images) * images[0].numel()
    storage = images[0].untyped_storage()._new_shared(count * images[0].element_size())
    batch = torch.empty(0, dtype=images[0].dtype).set_(storage, 0, (len(images), height, width, channels))
    batch = batch.permute(0, 3, 1, 2)
    return torch.stack(images, out=batch), labels


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
        photos = _Photos(task.dataset, Compose(transforms))
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
            generator=torch.Generator(),  # or it would draw from the caller's
        )
        self._next_epoch = task.epoch
        self._length = batches_in_epoch(task, self.num_samples)

    @property
    def description(self) -> str:
        """How it runs, for the log."""
        return describe_workers(self.task, "processes")

    def __len__(self) -> int:
        return self._length

    def __iter__(self):
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        batches = self._batches(epoch)
        return to_device(batches, self.task) if self._on_gpu else batches

    def _batches(self, epoch: int):
        self._sampler.epoch = epoch
        for images, labels in self._loader:
            if isinstance(labels, str):
                name = self._loader.dataset.source.name(images)
                raise DamagedSample(self.task.dataset, images, name, labels)
            yield images, labels

    def close(self) -> None:
        """End the worker processes."""
        iterator = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()
            self._loader._iterator = None
