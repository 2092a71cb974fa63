"""The ceiling: the first batch that the library's loader or the standard one has, again and again."""

import dataclasses
import os

import numpy as np

from beton.loading.base import Pipeline
from pipelines import open_pipeline


class Cached(Pipeline):
    """One batch for all; whichever epoch a run resumes with, it is the same."""

    reads = "any"
    is_ceiling = True

    def open(self) -> None:
        """Open a .beton or a photo folder, whichever the data set is; raises UserError."""
        name = "torch" if os.path.isdir(self.task.dataset) else "beton"
        with open_pipeline(name, dataclasses.replace(self.task)) as source:
            self.num_samples, self.classes = source.num_samples, source.classes
            self.multi_label = source.multi_label
            self._samples, batches = source.samples(0, 0), source.batches(0)
            self._batch = next(batches)
            batches.close()

    def batches(self, epoch: int, start: int = 0):
        """The batch, as often as an epoch has batches."""
        for _ in range(start, len(self)):
            yield self._batch

    def samples(self, epoch: int, batch: int) -> np.ndarray:
        """The samples of the batch."""
        return self._samples

    @property
    def description(self) -> str:
        """How it runs, for the log."""
        return "one batch, again and again"


PIPELINE = Cached
