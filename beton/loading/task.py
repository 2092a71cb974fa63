"""What a pipeline is told, and which samples that means: the same for every pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from beton import system
from beton.errors import UserError
from beton.loading import orders
from beton.loading.cache import Pages, Window, window_of
from beton.loading.sampling import Sampling, numbered
from beton.rng import sample_keys

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Task:
    """All that a pipeline is told.

    `dataset`: path of a .beton or of a folder with one folder for each class. `batch_size`: of this rank.
    `stages`: pipelines as text, by the name of the field, e.g. {"image": "rrc(224)|flip|normalize"}.
    `workers`: threads or processes. `dtype`: torch dtype of normalised images, None for float32. `shuffle`,
    `drop_last`: for training. `in_memory`: the data set fits into memory (else it is read nearly in sequence).
    `cache_gb`: the memory for it on each machine, in GB (10^9 bytes), where it does not fit (cache.py).
    `repeats`: repeated augmentation, so many different views of a sample in an epoch that is as long as
    before (orders.py). `on_error`: what happens to a damaged sample (damage.py). `verify`: compare each sample
    with its checksum. `columns`: the fields that a batch has, in its order; None for all that the file has.
    `sampling`: which samples an epoch has, None for all (sampling.py). `timed`: count where the threads of the loader
    spend their time (times.py). `views`: several of each image by name, (stages, how many), and `with_geometry` which
    part of its photo each image shows; of beton.Loader only. `with_indices`: a pipeline that can adds the numbers of
    its samples to a batch, as `indices`. `cache`: the folder that a data set of URLs is fetched into.
    """

    dataset: str
    batch_size: int
    workers: int
    stages: Mapping[str, str | None] = field(default_factory=dict)
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    device: str = "cpu"
    dtype: torch.dtype | None = None
    shuffle: bool = True
    drop_last: bool = True
    in_memory: bool = True
    repeats: int = 1
    on_error: str = "raise"
    verify: bool = False
    columns: tuple[str, ...] | None = ("image", "label")
    sampling: Sampling | None = None
    timed: bool = False
    views: Mapping[str, tuple[str, int]] | None = None
    with_geometry: bool = False
    with_indices: bool = False
    cache_gb: float | None = None
    cache: str | None = None

    @property
    def float_dtype(self) -> Any:
        """The torch dtype of normalised images."""
        import torch

        return torch.float32 if self.dtype is None else self.dtype

    @property
    def is_shuffled(self) -> bool:
        """Whether the seed says in which order the samples come."""
        return self.shuffle and not (self.sampling is not None and self.sampling.is_ordered)

    def order(
        self,
        num_samples: int,
        epoch: int,
        pages: Pages | None = None,
        drop_last: bool | None = None,
        groups: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is read in an epoch: this rank's samples (int64) in their order, and their random keys (uint64).

        `pages` is where each lies in its file, for data sets that are not held in memory. `groups` (int64, one a
        sample): where they are shuffled, those of a lower number come first.
        """
        # sample + num_samples * number of the view
        views, lanes = self._views(num_samples, epoch, pages, groups)
        if self.repeats > 1:
            step = num_samples * (1 + int(views.max()) // num_samples)
            length = orders.repeated_length(len(views), self.world_size)
            views = orders.repeated(views, self.repeats, step, lanes)[:length]
        drop_last = self.drop_last if drop_last is None else drop_last
        share = orders.rank_share(views, self.batch_size, self.rank, self.world_size, drop_last)
        return share % num_samples, sample_keys(self.seed, epoch, share)

    def window(self, num_samples: int, pages: Pages | None) -> Window | None:
        """How an epoch of a file of so many samples is mixed, where that is not at random. Raises UserError."""
        if self.in_memory or pages is None or not self.is_shuffled:
            return None
        count = num_samples if self.sampling is None else self.sampling.length(num_samples, self.seed, 0)
        return window_of(self, count, pages)

    def _views(self, num_samples: int, epoch: int, pages: Pages | None, groups=None) -> tuple[np.ndarray, int]:
        """The samples of all ranks in their order, before repeated augmentation, and of how many lanes it is."""
        if self.sampling is None:
            views, count = np.arange(num_samples), num_samples
        else:
            samples = self.sampling.samples(num_samples, self.seed, epoch)
            views, count = numbered(samples, num_samples), len(samples)
        if not self.is_shuffled:
            return views, 1
        of_view = None if groups is None else groups[views % num_samples]
        window = self.window(num_samples, pages)
        if window is None:
            order = orders.random_order(count, self.seed, epoch)
            return views[order if of_view is None else orders.grouped(order, of_view[order])], 1
        page, (lanes, mixed) = pages.of_sample[views % num_samples], window
        return views[orders.quasi_random_order(page, mixed, self.seed, epoch, lanes, of_view)], lanes

    def batches(self, num_samples: int, epoch: int = 0) -> int:
        """Batches of this rank in an epoch; raises UserError when there are none."""
        count = num_samples
        if self.sampling is not None:
            self.sampling.check(num_samples)
            count = self.sampling.length(num_samples, self.seed, epoch)
        length = count if self.repeats == 1 else orders.repeated_length(count, self.world_size)
        share = len(range(self.rank, length, self.world_size))
        batches = -(-share // self.batch_size)
        if self.drop_last:
            batches = length // (self.batch_size * self.world_size)
        if not batches:
            raise UserError(
                f"{self.dataset} has {count} samples, too few for one batch of {self.batch_size} "
                f"on each of {self.world_size} ranks",
                "make `batch_size` smaller",
            )
        return batches

    @property
    def usable_workers(self) -> int:
        """`workers`, but no more than there are cores for this process, or its share of them beside other ranks."""
        return max(1, min(self.workers, system.cores_of_rank()))

    def describe_workers(self, kind: str) -> str:
        """E.g. "2 threads (not 12: there are no more cores)", for the log."""
        workers = self.usable_workers
        clamped = f" (not {self.workers}: there are no more cores)" if workers < self.workers else ""
        return f"{workers} {kind}{clamped}"
