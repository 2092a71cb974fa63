"""The loader: batches from a .beton through JIT stages, in threads of this process.

It reads FFCV's files, with threads and kernels of its own: FFCV 1.0.2's loader hangs when a stage fails,
overwrites batches that are still held, leaks threads when an epoch is left early, draws its augmentations
from generators that cannot be seeded, decodes whole photos to use half of them, and walks over every batch
once for each stage. Here the crop, a flip and a move behind it, and normalize are one pass (beton/kernels).
"""

from __future__ import annotations

import itertools
import os
import sys
import weakref
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from keyword import iskeyword
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from beton import system
from beton.errors import UserError, without_secrets
from beton.format.file import BetonFile
from beton.format.joined import open_beton
from beton.format.mapped import MappedFile
from beton.format.parts import absolute, is_remote, text_of
from beton.loading.after import Called
from beton.loading.cache import AHEAD, LEAD, Pages
from beton.loading.columns import Columns, as_pipelines, class_names, decoders
from beton.loading.damage import POLICIES, RAISE, SKIP
from beton.loading.reading import Reading
from beton.loading.sampling import Sampling
from beton.loading.task import Task
from beton.loading.times import Times
from beton.loading.work import Workers
from beton.rng import permutation

if TYPE_CHECKING:
    import torch

    from beton.loading.statistics import Statistics

# Batches that are read before one is used, with those that are copied to a GPU; those whose pages are asked for besides
_AHEAD_IN_ALL = AHEAD + 4
# What a thread takes at a time, in numbers that come out: few enough to stay in its cache, enough to hide what it costs
# to hand them out. At least 8 samples: of small ones more, so that Python costs less than they do.
_CHUNK_NUMBERS, _FEWEST, _MOST = 8 * 224 * 224 * 3, 8, 1024


class Loader(Reading):
    """Batches of a .beton: `for images, labels in loader` is one epoch, each time the next one.

    A batch is a named tuple with a column for each field of the file, in its order: images N x C x H x W
    (channels_last; of `dtype`, or uint8 without normalize), ints int64, N, floats float64, N, arrays and tensors N x
    their shape, lists of N strings, bytes or objects (beton/format/fields). It stays as it is while it is held.

    `path`: the file, or several as one: a list, or a pattern such as 'train-*.beton'. URLs are fetched into the folder
    `cache`, once for all processes of a machine, and used as they come (docs/remote.md). `batch_size`: samples in a
    batch.
    A keyword for each field: its stages as text, e.g. image="rrc(224)|flip|normalize", or a list of texts and callables
    (beton.on_image, beton.on_batch), where it takes some, or None to leave it out. `fields`: the same as a dict, for
    fields whose names are those of other arguments. `views`: several views of each image by name, (stages, how
    many), e.g. {"global": ("rrc(224)|normalize", 2)}: a photo is decoded once for all of them, each has a random key
    of its own, and a column is the tuple of its views; of the field `image`, or the only one of images, which is
    then left out unless it has stages too. `columns`: the fields wanted, in this order (default: all). `as_dict`:
    batches are dicts. `with_indices`: they have the numbers of their samples too, `indices`, int64, N.
    `with_geometry`: for each column `x` of images a column `x_geometry`, the named tuple (crop, mirrored, size) of
    beton/loading/geometry.py: enough to move boxes and keypoints.

    `indices`: only these samples (a subset, a fold). `weights`: as many samples as there are, drawn with replacement in
    proportion to these numbers, one for each of the file or of `indices`. `order`: a function that gives the samples of
    an epoch for its number, or a torch Sampler, whose generator begins with the seed and the epoch; all ranks share
    what it gives, unless a DistributedSampler has shared it already (then leave `rank` and `world_size` out).

    `workers`: threads (default: all cores). `device`: where batches go, a torch device. `dtype`: torch dtype of
    normalised images (default float32). `seed`: order and augmentations depend on it, the epoch and the sample alone.
    `shuffle`; `drop_last`: leave out a smaller batch at the end. `in_memory`: False for files larger than memory,
    which are then read nearly in sequence. `cache_gb`: the memory for such a file on each machine, in GB, which all
    ranks there share (default: two pages for each sample of a batch, as FFCV, and the system keeps what it can).
    `rank`, `world_size`: this process's share of each epoch; for the same batch of all ranks together, any number of
    them reads the same samples in each step. `repeats`: repeated augmentation, views of a sample in an epoch.
    `on_error`: a damaged sample is an error ('raise'), left out ('skip') or replaced by another ('substitute').
    `verify`: compare each sample with its checksum. `timed`: count in `times` (beton.loading.times.Times) what each
    part of the work takes; after an epoch times.per_sample() has it.

    Raises UserError for what is wrong with the file or the arguments, DamagedSample while iterating.
    """

    on_error = POLICIES
    verifies = True
    ahead = AHEAD
    _as_dict = False
    _parts: np.ndarray | None = None  # which file holds each sample (int64), where an epoch may have these in turn
    _after: Mapping[str, list] = MappingProxyType({})  # what is called with the batches of a column

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        batch_size: int,
        *,
        columns: tuple[str, ...] | None = None,
        fields: Mapping[str, str | list[str] | None] | None = None,
        views: Mapping[str, tuple[str, int]] | None = None,
        as_dict: bool = False,
        with_indices: bool = False,
        with_geometry: bool = False,
        indices: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        order: Callable[[int], Sequence[int]] | Iterable[int] | None = None,
        workers: int | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        in_memory: bool = True,
        rank: int = 0,
        world_size: int = 1,
        repeats: int = 1,
        on_error: str = RAISE,
        verify: bool = False,
        timed: bool = False,
        cache_gb: float | None = None,
        cache: str | Path | None = None,
        **field: str | list | None,
    ):
        self._as_dict = as_dict
        sampling = None
        if not (indices is None and weights is None and order is None):
            sampling = Sampling(indices, weights, order)
        if weights is not None and not shuffle:
            raise UserError("`weights` draw at random, and `shuffle` is False", "leave one of them out")
        stages, views, self._after = as_pipelines({**(fields or {}), **field}, views)
        super().__init__(
            Task(
                text_of(path), batch_size, system.cores() if workers is None else workers, stages, seed, rank,
                world_size, str(device), dtype, shuffle, drop_last, in_memory, repeats, on_error, verify, columns,
                sampling, timed, views, with_geometry, with_indices, cache_gb,
                None if cache is None else os.path.abspath(cache),
            )
        )  # fmt: skip

    # Opening

    def open(self) -> None:
        """Open the file and plan its columns; raises UserError."""
        task, self._absolute = self.task, absolute(self.task.dataset)
        with self._opened() as file:
            self.num_samples, self.classes, self.fields = len(file), class_names(file), file.fields
            cached = task.cache_gb is not None and not task.in_memory
            self._mapped = MappedFile(file, task.verify, cached)
            made = decoders(file, self._mapped, task, self.on_gpu)
            self._columns = Columns(task.dataset, made, task.batch_size, self.on_gpu)
            self._columns.check_after(self._after)
            self._fields = file.columns
        self._shown = [*self._columns.names, *["indices"] * task.with_indices]
        if "indices" in self._columns.names and task.with_indices:
            raise UserError(f"{task.dataset} has a field 'indices' itself", "leave out `with_indices`")
        # A word of Python's, such as the view 'global', is the attribute `global_`
        self.Batch = namedtuple("Batch", [f"{n}_" if iskeyword(n) else n for n in self._shown], rename=True)
        self.times = Times() if task.timed else None
        for decoder in self._columns.decoders:
            decoder.timed = task.timed
        self._pages = None
        if not task.in_memory:
            of_sample = self._mapped.pages()
            self._pages = Pages(of_sample, len(np.unique(of_sample)), self._mapped.page_size)
        self._caches = cached and self.window is not None
        if self._caches:
            self._mapped.no_read_ahead()
            self._check_memory()
        self._open_workers()

    def _open_workers(self) -> None:
        """Decide what a thread is handed: equal pieces of a batch, at least two for each thread of what is in work at a
        time."""
        size = self.task.batch_size
        share = -(-(self.ahead + 1) * size // (2 * self.task.usable_workers))
        wanted = max(_FEWEST, min(_CHUNK_NUMBERS // max(1, self._columns.numbers), share, _MOST))
        self._chunk = min(-(-size // max(1, round(size / wanted))), max(_FEWEST, share))
        self._workers = Workers(self._columns.decoders, self._chunk)

    def _opened(self) -> BetonFile:
        """The file; one of URLs, of which no more than the tables need be there yet."""
        if not is_remote(self.task.dataset):
            return open_beton(self.task.dataset)
        from beton.remote.arrival import Arrival, mixed

        arrival = Arrival(self.task.dataset, self.task.cache, self.task.rank)
        file = arrival.open()
        weakref.finalize(self, arrival.close)
        if len(arrival.files) > 1:
            parts = arrival.parts()
            apart = mixed(file.labels, parts)
            self._parts = parts if apart is None else None
            if apart is not None and self.task.shuffle and self.task.rank == 0:
                which = without_secrets(file.parts[apart].path)
                print(f"note: the first epoch waits for all files: {which} has other classes than all", file=sys.stderr)
        return file

    def groups(self, epoch: int) -> np.ndarray | None:
        """In epoch 0 the samples of files that are fetched come file by file. A rule of the epoch, not of what is there
        already, so that the same seed gives the same batches."""
        return self._parts if epoch == 0 else None

    def release(self) -> None:
        """Let go of the file."""
        self._mapped.close()

    def pages(self) -> Pages | None:
        """Where in the file each sample lies, if it is larger than memory."""
        return self._pages

    def finish(self) -> list[Any]:
        """What the decoders leave to the device."""
        return self._columns.left(int(self.task.with_indices))

    def _batches(self, epoch: int, start: int) -> Iterator[tuple]:
        made = super()._batches(epoch, start)
        if self._mapped.arrival is not None and not self._mapped.arrival.is_complete:
            made = self._as_they_come(made, epoch, start)
        return Called(self._after, self.task).with_batches(made, epoch, start) if self._after else made

    def _as_they_come(self, made: Iterator[tuple], epoch: int, start: int) -> Iterator[tuple]:
        """The batches, each when its samples and those that are read ahead are there: nobody waits in a thread, where
        an epoch that is left early would wait too."""
        samples, size = self.order(epoch)[0], self.task.batch_size
        first = 0 if self.task.on_error == SKIP else start * size
        ahead = _AHEAD_IN_ALL + LEAD * self._caches
        with closing(made):
            for end in itertools.count((start + 1 + ahead) * size, size):
                self._mapped.arrival.wait(samples[first:end])
                first = end
                batch = next(made, None)
                if batch is None:
                    return
                yield batch

    def batch_of(self, columns: tuple) -> Any:
        """A named tuple, or a dict."""
        return dict(zip(self._shown, columns, strict=True)) if self._as_dict else self.Batch._make(columns)

    def _options(self) -> dict[str, Any]:
        return {"_as_dict": self._as_dict, "_after": self._after}

    def statistics(self, name: str, samples: int | None = None) -> Statistics:
        """(mean, std) of each channel of the images of a field, as normalize takes them: for pixels scaled to 0..1 (of
        float32 arrays as they are).

        Over the whole of the stored images, not the crops; each image has the same weight. Of the file, or `indices`;
        `samples`: only so many of them, drawn by the seed. Damaged ones are an error, or left out, as `on_error` says.
        """
        from beton.loading.statistics import statistics

        if name not in self._fields:
            raise UserError(f"{self.task.dataset} has no field '{name}'", f"name one of {', '.join(self._fields)}")
        of = np.unique(
            np.arange(self.num_samples) if self.task.sampling is None else self._population(self.order(0)[0])
        )
        if samples is not None:
            of = np.sort(of[permutation(len(of), self.task.seed)[:samples]])
        left_out = partial(self.damaged, replaced=False)
        return statistics(self._mapped, self._fields[name], of, self.task.usable_workers, left_out)

    @property
    def description(self) -> str:
        """How it runs, for the log."""
        left = [name for name in self._fields if name not in self._columns.fields]
        about = [*self._columns.descriptions, *[f"without the fields {', '.join(left)}"] * bool(left)]
        return ", ".join([super().description, *about])
