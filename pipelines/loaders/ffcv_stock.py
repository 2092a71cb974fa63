"""The peer to compare with: FFCV 1.0.2's own Loader and operations, untouched, as ffcv-imagenet sets them up.

What the other loaders promise and this one does not, because FFCV does not:
- A batch is a view of one of FFCV's five buffers. It is good until the next one is taken, then written over; copying
  it here would make FFCV look slower than it is.
- The order follows the seed and the epoch, crops and flips do not.
- A JPEG that cannot be decoded is no error: the pixels of another photo come with its label.
- FFCV sets torch's number of threads to the number of workers.
Where an operation fails, FFCV prints a traceback and waits for ever; that much is made an exception here.
"""

import threading
from contextlib import suppress
from importlib.metadata import version
from queue import Empty

import numpy as np
import torch

from pipelines import stages
from pipelines.beton import INT_FIELD, RGB_FIELD, read_card, read_index
from pipelines.errors import UserError
from pipelines.loaders import Task, batches_in_epoch, describe_workers, usable_workers
from pipelines.ops.center import Center
from pipelines.ops.flip import Flip
from pipelines.ops.normalize import NormalizeStage
from pipelines.ops.rrc import Rrc

needs = {"ffcv": "ffcv==1.0.2"}
reads = "beton"

_INSTEAD = "use the loader ffcv"


def open_loader(task: Task) -> "Loader":
    """Open a .beton; raises UserError for what FFCV 1.0.2 cannot do."""
    return Loader(task)


def _check(task: Task) -> None:
    """Raise UserError for a task that FFCV 1.0.2, or this use of it, has no way to do."""
    if task.repeats > 1:
        raise UserError("FFCV has no repeated augmentation", _INSTEAD)
    if task.world_size > 1:
        # Its distributed mode repeats samples to fill up the ranks, and has no order for large files
        raise UserError("ffcv_stock reads for one process only", _INSTEAD)
    if torch.device(task.device).type != "cpu":
        raise UserError("ffcv_stock gives batches on the host only", _INSTEAD)
    if task.dtype != torch.float32:
        raise UserError(f"ffcv_stock gives float32 or uint8, not {task.dtype}", f"set float32, or {_INSTEAD}")
    for stage in stages.parse(task.stages):
        if not isinstance(stage, (Rrc, Center, Flip, NormalizeStage)):
            name = type(stage).__module__.rpartition(".")[2]
            raise UserError(f"FFCV has no stage '{name}' as it is here", f"leave it out, or {_INSTEAD}")
        if getattr(stage, "interpolation", "area") != "area":
            raise UserError(f"FFCV has no interpolation '{stage.interpolation}'", f"set 'area', or {_INSTEAD}")


def _operations(text: str) -> list:
    """FFCV's operations for the stages, in the only order that works on a CPU: normalised before ToTensor."""
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, ToTensor, ToTorchImage

    found = []
    for stage in stages.parse(text):
        if isinstance(stage, Rrc):
            found.append(RandomResizedCropRGBImageDecoder((stage.size, stage.size), stage.scale, stage.ratio))
        elif isinstance(stage, Center):
            found.append(CenterCropRGBImageDecoder((stage.size, stage.size), stage.ratio))
        elif isinstance(stage, Flip):
            found.append(RandomHorizontalFlip(stage.p))
        else:
            found.append(NormalizeImage(np.array(stage.mean) * 255, np.array(stage.std) * 255, np.float32))
    return [*found, ToTensor(), ToTorchImage(channels_last=True)]


class Loader:
    """See pipelines/loaders/__init__.py for what every loader has, and above for what this one has not."""

    def __init__(self, task: Task):
        _check(task)
        self.task = task
        index = read_index(task.dataset)
        if (index.fields.get("image"), index.fields.get("label")) != (RGB_FIELD, INT_FIELD):
            what = f"{task.dataset} has no fields image and label that FFCV can read"
            raise UserError(what, "write it with write_dataset.py, but not as blocks")
        self.num_samples = index.num_samples
        card = read_card(task.dataset) or {}
        self.classes = card.get("classes") or [str(c) for c in range(int(index.metadata["label"].max()) + 1)]
        self._length = batches_in_epoch(task, self.num_samples)
        self._stock = self._open_stock(list(index.fields))
        self._stock.next_epoch, self._start = task.epoch, task.start

    def _open_stock(self, fields: list[str]):
        """FFCV's Loader; it yields the fields in the file's order, so images and labels are told by their place."""
        from ffcv.fields.basics import IntDecoder
        from ffcv.loader import Loader as StockLoader
        from ffcv.loader import OrderOption
        from ffcv.transforms import ToTensor

        task, order = self.task, OrderOption.SEQUENTIAL
        if task.shuffle:
            order = OrderOption.RANDOM if task.in_memory else OrderOption.QUASI_RANDOM
        pipelines = dict.fromkeys(fields)  # None: not read
        pipelines |= {"image": _operations(task.stages), "label": [IntDecoder(), ToTensor()]}
        self._image_first = fields.index("image") < fields.index("label")
        return StockLoader(
            task.dataset,
            batch_size=task.batch_size,
            num_workers=usable_workers(task),
            os_cache=task.in_memory,
            order=order,
            seed=task.seed,
            drop_last=task.drop_last,
            pipelines=pipelines,
        )

    @property
    def description(self) -> str:
        """How it runs, for the log."""
        threads = describe_workers(self.task, "threads")
        return f"FFCV {version('ffcv')}, {threads}, its buffers are used again"

    def __len__(self) -> int:
        return self._length

    def __iter__(self):
        start, self._start = self._start, 0
        epoch = iter(self._stock)  # FFCV's thread, which has begun to work
        watch = threading.Thread(target=_wake, args=(epoch,), daemon=True)
        watch.start()
        taken = 0
        try:
            for first, second in epoch:
                taken += 1
                if taken <= start:  # FFCV cannot begin in mid-epoch: these are read for nothing
                    continue
                images, labels = (first, second) if self._image_first else (second, first)
                yield images, labels.view(-1)
            if taken < self._length:
                raise RuntimeError(f"FFCV failed in batch {taken + 1} of {self.task.dataset}; it has said why above")
        finally:
            _end(epoch, watch)

    def samples(self, epoch: int, batch: int) -> np.ndarray:
        """The samples of a batch, for error messages."""
        order = self._stock.traversal_order.sample_order(epoch)
        return np.asarray(order)[batch * self.task.batch_size : (batch + 1) * self.task.batch_size]

    def close(self) -> None:
        """Nothing outlives an epoch."""


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
