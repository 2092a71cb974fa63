"""What the loaders of other projects share here. Those that can only do the usual stages get them as a Recipe.

What the other pipelines promise and these do not:
- They read for one process, know no repeated augmentation, and stop at a damaged photo.
- Crops and flips do not follow the seed; of those that shuffle themselves (a StreamPeer), the order does not either.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from beton.errors import UserError
from beton.loading.base import Pipeline
from beton.loading.task import Task
from beton.sources.imagefolder import PhotoFolder, open_source
from beton.stages.base import Normalize
from beton.stages.center import Center
from beton.stages.flip import Flip
from beton.stages.parse import parse
from beton.stages.rrc import Rrc
from pipelines.torch import end_workers, obey_only_the_parent, stack, transform_of

_INSTEAD = "use the pipeline beton"
_CLASSES = "classes.json"


@dataclass(frozen=True)
class Recipe:
    """A crop, perhaps a flip, perhaps normalize: what every loader has an equivalent of.

    A random crop (`scale`, `ratio` as in rrc), or, where `scale` is None, the centre: its `share` of the largest
    centred rectangle of that shape, which is the same as resizing to `covered` (height, width) and then cutting.
    `flip`: its probability. `mean`, `std` of pixels in 0..1; None: pixels stay uint8.
    """

    height: int
    width: int
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] | None = None
    share: float = 1.0
    flip: float = 0.0
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that the photo is resized to cover before the centre is cut out."""
        return round(self.height / self.share), round(self.width / self.share)


def recipe(name: str, task: Task) -> Recipe:
    """The stages of a task for the pipeline `name`; raises UserError for one that has no equivalent in all of them."""
    given = {}
    for stage in parse(task.stages["image"]):
        if getattr(stage, "interpolation", "area") not in ("area", "bilinear"):
            raise UserError(f"the pipeline '{name}' has no interpolation '{stage.interpolation}'", _INSTEAD)
        if isinstance(stage, Rrc):
            given |= {"height": stage.height, "width": stage.width, "scale": stage.scale, "ratio": stage.ratio}
        elif isinstance(stage, Center):
            given |= {"height": stage.height, "width": stage.width, "share": stage.ratio}
        elif isinstance(stage, Flip):
            given["flip"] = stage.p
        elif isinstance(stage, Normalize):
            given |= {"mean": stage.mean, "std": stage.std}
        else:
            stage_name = type(stage).__module__.rpartition(".")[2]
            raise UserError(f"the pipeline '{name}' has no stage '{stage_name}'", f"leave it out, or {_INSTEAD}")
    return Recipe(**given)


def check(name: str, task: Task) -> None:
    """Raise UserError for a task that this use of the loaders has no way to do."""
    if task.world_size > 1:
        raise UserError(f"the pipeline '{name}' reads for one process only", _INSTEAD)
    if task.repeats > 1:
        raise UserError(f"the pipeline '{name}' has no repeated augmentation", _INSTEAD)
    if task.float_dtype != torch.float32 and not str(task.device).startswith("cuda"):
        raise UserError(f"the pipeline '{name}' gives float32 or uint8, not {task.dtype}", _INSTEAD)


class Peer(Pipeline):
    """A loader of another project that reads photo files in the order of the task."""

    reads = "photos"

    @property
    def name(self) -> str:
        """Its file in pipelines/."""
        return type(self).__module__.rpartition(".")[2]

    def open(self) -> None:
        """Open a photo folder; raises UserError when it or the task cannot be used."""
        check(self.name, self.task)
        self.photos = open_source(self.task.dataset, "train")
        self.num_samples, self.classes = len(self.photos), self.photos.classes
        self.recipe = recipe(self.name, self.task)

    def chosen(self, samples: np.ndarray, start: int) -> tuple[list[str], list[int]]:
        """Paths and labels of what is left of an epoch from batch `start` on."""
        rest = samples[start * self.task.batch_size :].tolist()
        return [self.photos.name(index) for index in rest], [self.photos.label(index) for index in rest]


class StreamPeer(Pipeline):
    """A loader of another project that reads a data set of its own, in its own order when it shuffles.

    A subclass implements make() and loader(). As its workers batch by themselves, an epoch may have a few more
    batches that are not full, or fewer batches where these are dropped.
    """

    worker_kind = "processes"

    @classmethod
    def make(cls, photos: PhotoFolder, folder: Path) -> None:
        """Write the photos, as they are, as this loader's data set."""
        raise NotImplementedError

    def loader(self, transform, collate):
        """The DataLoader: `transform` takes a PIL image, `collate` a list of (tensor, label)."""
        raise NotImplementedError

    def open(self) -> None:
        """Open what make() wrote; raises UserError when it or the task cannot be used."""
        check(self.reads, self.task)
        self.folder = Path(self.task.dataset)
        self.num_samples, self.classes = read_classes(self.folder, self.reads)
        self._loader = self.loader(transform_of(self.task), collate)

    @property
    def workers(self) -> int:
        """Processes: one where the order must stay, as each reads a part of the data set."""
        return self.task.usable_workers if self.task.shuffle else 1

    def worker_options(self) -> dict:
        """Arguments for a DataLoader."""
        return {
            "num_workers": self.workers,
            "pin_memory": self.on_gpu,
            "persistent_workers": True,
            "worker_init_fn": obey_only_the_parent,
            "generator": torch.Generator().manual_seed(self.task.seed),
        }

    def begin(self, epoch: int) -> None:
        """Tell the loader which epoch is read next, where it wants to be told."""

    def read(self, epoch: int, samples: np.ndarray, keys: np.ndarray, start: int) -> Iterator[tuple]:
        """The loader's batches; those before `start` are read for nothing."""
        self.begin(epoch)
        yield from islice(iter(self._loader), start, None)

    def samples(self, epoch: int, batch: int) -> np.ndarray:
        """Known only where nothing is shuffled; else none."""
        return np.empty(0, np.int64) if self.task.shuffle else super().samples(epoch, batch)

    def release(self) -> None:
        """End the worker processes."""
        end_workers(self._loader)


def collate(samples: list[tuple]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in channels_last and in shared memory, and int64 labels."""
    return stack([image for image, _ in samples]), torch.tensor([int(label) for _, label in samples])


def write_classes(folder: Path, photos: PhotoFolder) -> None:
    """Put down what a loader's own data set does not say."""
    (folder / _CLASSES).write_text(json.dumps({"samples": len(photos), "classes": photos.classes}))


def read_classes(folder: Path, name: str) -> tuple[int, list[str]]:
    """Number of samples and names of the classes; raises UserError where write_classes() has not been."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", f"give a data set that was made for the pipeline '{name}'")
    try:
        found = json.loads((folder / _CLASSES).read_text())
    except OSError:
        what = f"{folder} was not made for the pipeline '{name}': it has no {_CLASSES}"
        raise UserError(what, "profile_loaders.py makes it of a photo folder, in profile.cache") from None
    return found["samples"], found["classes"]


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """A batch N x H x W x C as a tensor N x C x H x W in channels_last, without a copy."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def batches_of(items: Iterator, size: int, drop_last: bool) -> Iterator[list]:
    """Lists of `size` items."""
    while batch := list(islice(items, size)):
        if len(batch) == size or not drop_last:
            yield batch
