"""Grain: a MapDataset with random access, threads that read ahead; photos decoded and augmented by OpenCV."""

import numpy as np
import torch

from pipelines._arrays import augment, decode
from pipelines._peer import Peer, as_tensor


class _Photos:
    """A random access data source."""

    def __init__(self, paths: list[str], labels: list[int]):
        self._paths, self._labels = paths, labels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, at: int) -> tuple:
        return decode(self._paths[at]), self._labels[at]


class Grain(Peer):
    """grain.MapDataset, with a thread a worker: OpenCV lets go of the GIL."""

    needs = {"grain": "grain"}

    def read(self, epoch, samples, keys, start):
        """The order is the task's; random numbers are Grain's own, one generator a photo."""
        import grain

        task = self.task
        photos = grain.MapDataset.source(_Photos(*self.chosen(samples, start))).seed(int(keys[0] >> np.uint64(33)))
        photos = photos.random_map(lambda sample, draw: (augment(self.recipe, sample[0], draw), np.int64(sample[1])))
        options = grain.ReadOptions(num_threads=task.usable_workers, prefetch_buffer_size=2 * task.batch_size)
        for images, labels in photos.to_iter_dataset(options).batch(task.batch_size, drop_remainder=task.drop_last):
            yield as_tensor(images), torch.from_numpy(labels)


PIPELINE = Grain
