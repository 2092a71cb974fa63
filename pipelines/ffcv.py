"""The peer to compare with: FFCV 1.0.2's own Loader and operations, untouched, as ffcv-imagenet sets them up.

What the other pipelines promise and this one does not, because FFCV does not:
- A batch is a view of one of FFCV's five buffers. It is good until the next one is taken, then written over; copying
  it here would make FFCV look slower than it is.
- The order follows the seed and the epoch, crops and flips do not.
- A JPEG that cannot be decoded is no error: the pixels of another photo come with its label.
- FFCV sets torch's number of threads to the number of workers.
Where an operation fails, FFCV prints a traceback and waits for ever; that much is made an exception here.
"""

import threading
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from queue import Empty

import numpy as np

from beton.errors import UserError
from beton.format.file import BetonFile
from beton.format.parts import paths_of
from beton.loading.base import Pipeline
from beton.loading.columns import class_names
from beton.loading.task import Task
from beton.stages.base import Normalize
from beton.stages.center import Center
from beton.stages.cutout import Cutout
from beton.stages.flip import Flip
from beton.stages.parse import parse
from beton.stages.rrc import Rrc
from beton.stages.translate import Translate

_INSTEAD = "use the pipeline beton"


def _check(task: Task) -> None:
    """Raise UserError for a task that FFCV 1.0.2, or this use of it, has no way to do."""
    import torch

    if task.repeats > 1:
        raise UserError("FFCV has no repeated augmentation", _INSTEAD)
    if task.world_size > 1:
        # Its distributed mode repeats samples to fill up the ranks, and has no order for large files
        raise UserError("the pipeline 'ffcv' reads for one process only", _INSTEAD)
    if torch.device(task.device).type != "cpu":
        raise UserError("the pipeline 'ffcv' gives batches on the host only", _INSTEAD)
    if task.float_dtype != torch.float32:
        raise UserError(f"the pipeline 'ffcv' gives float32 or uint8, not {task.dtype}", _INSTEAD)
    for stage in parse(task.stages["image"]):
        if not isinstance(stage, (Rrc, Center, Flip, Translate, Cutout, Normalize)):
            name = type(stage).__module__.rpartition(".")[2]
            raise UserError(f"FFCV has no stage '{name}' as it is here", f"leave it out, or {_INSTEAD}")
        if getattr(stage, "interpolation", "area") != "area":
            raise UserError(f"FFCV has no interpolation '{stage.interpolation}'", f"set 'area', or {_INSTEAD}")


def _operations(text: str, sizes: set[tuple[int, int]]) -> list:
    """FFCV's operations for the stages, in the only order that works on a CPU: normalised before ToTensor.

    `sizes`: height and width of the photos. Where all are what a stage makes of them, FFCV's decoder that resizes
    nothing is the fastest.
    """
    from ffcv.fields.rgb_image import (
        CenterCropRGBImageDecoder,
        RandomResizedCropRGBImageDecoder,
        SimpleRGBImageDecoder,
    )
    from ffcv.transforms import Cutout as StockCutout
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, RandomTranslate, ToTensor, ToTorchImage

    found = []
    for stage in parse(text):
        if isinstance(stage, Rrc):
            found.append(RandomResizedCropRGBImageDecoder((stage.height, stage.width), stage.scale, stage.ratio))
        elif isinstance(stage, Center) and stage.ratio == 1 and sizes == {(stage.height, stage.width)}:
            found.append(SimpleRGBImageDecoder())
        elif isinstance(stage, Center):
            found.append(CenterCropRGBImageDecoder((stage.height, stage.width), stage.ratio))
        elif isinstance(stage, Flip):
            found.append(RandomHorizontalFlip(stage.p))
        elif isinstance(stage, Translate):
            found.append(RandomTranslate(stage.padding, stage.fill))
        elif isinstance(stage, Cutout):
            found.append(StockCutout(stage.size, stage.colour))
        else:
            found.append(NormalizeImage(np.array(stage.mean) * 255, np.array(stage.std) * 255, np.float32))
    return [*found, ToTensor(), ToTorchImage(channels_last=True)]


class Ffcv(Pipeline):
    """FFCV's Loader."""

    needs = {"ffcv": "ffcv==1.0.2"}

    def open(self) -> None:
        """Open a .beton; raises UserError for what FFCV 1.0.2 cannot do."""
        _check(self.task)
        if paths_of(self.task.dataset) != [self.task.dataset]:
            raise UserError(
                "FFCV 1.0.2 reads one .beton", "merge them (python -m beton merge), or set `pipeline`='beton'"
            )
        with BetonFile(self.task.dataset) as file:
            if (file.fields.get("image"), file.fields.get("label")) != ("rgb_image", "int"):
                what = f"{file.path} has no fields image and label that FFCV can read"
                raise UserError(what, "write it with these, and the images not as blocks")
            self.num_samples, self.classes, fields = len(file), class_names(file), list(file.columns)
            records = file.columns["image"].records
            sizes = set(map(tuple, np.unique(np.stack([records["height"], records["width"]], axis=1), axis=0).tolist()))
        self._stock = self._open_stock(fields, _operations(self.task.stages["image"], sizes))

    def _open_stock(self, fields: list[str], operations: list):
        """FFCV's Loader; it yields the fields in the file's order, so images and labels are told by their position."""
        from ffcv.fields.basics import IntDecoder
        from ffcv.loader import Loader as StockLoader
        from ffcv.loader import OrderOption
        from ffcv.transforms import ToTensor

        task, order = self.task, OrderOption.SEQUENTIAL
        if task.shuffle:
            order = OrderOption.RANDOM if task.in_memory else OrderOption.QUASI_RANDOM
        pipelines = dict.fromkeys(fields)  # None: not read
        pipelines |= {"image": operations, "label": [IntDecoder(), ToTensor()]}
        self._image_first = fields.index("image") < fields.index("label")
        return StockLoader(
            task.dataset,
            batch_size=task.batch_size,
            num_workers=task.usable_workers,
            os_cache=task.in_memory,
            order=order,
            seed=task.seed,
            drop_last=task.drop_last,
            pipelines=pipelines,
        )

    @property
    def description(self) -> str:
        """How it runs, for the log."""
        return f"FFCV {version('ffcv')}, {super().description}, its buffers are used again"

    def read(self, epoch: int, samples: np.ndarray, keys: np.ndarray, start: int) -> Iterator[tuple]:
        """FFCV's own order; it cannot begin in mid-epoch: batches before `start` are read for nothing."""
        self._stock.next_epoch = epoch
        running = iter(self._stock)  # FFCV's thread, which has begun to work
        watch = threading.Thread(target=_wake, args=(running,), daemon=True)
        watch.start()
        taken = 0
        try:
            for first, second in running:
                taken += 1
                if taken > start:
                    images, labels = (first, second) if self._image_first else (second, first)
                    yield images, labels.view(-1)
            if taken < len(self):
                raise RuntimeError(f"FFCV failed in batch {taken + 1} of {self.task.dataset}; it has said why above")
        finally:
            _end(running, watch)

    def samples(self, epoch: int, batch: int) -> np.ndarray:
        """The samples of a batch, for error messages."""
        order = self._stock.traversal_order.sample_order(epoch)
        return np.asarray(order)[batch * self.task.batch_size : (batch + 1) * self.task.batch_size]


def _wake(epoch) -> None:
    """When FFCV's thread has ended, tell the one that waits for its batches: a thread that failed does not."""
    epoch.join()
    epoch.output_queue.put(None)


def _end(epoch, watch: threading.Thread) -> None:
    """End the threads of an epoch; FFCV's looks up only when its queue has been full for a while."""
    epoch.close()
    epoch.join(2)
    while watch.is_alive():
        with suppress(Empty):
            epoch.output_queue.get(timeout=0.05)


PIPELINE = Ffcv
