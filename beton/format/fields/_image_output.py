"""One image of a photo: how it is cut out, and the stages that run behind the kernels."""

from __future__ import annotations

import numpy as np
import torch

from beton.format.fields.base import Decoder
from beton.kernels import View
from beton.stages.base import Stage
from beton.stages.callables import OnImage
from beton.stages.plan import Plan, plan


class Output:
    """What a pipeline of stages makes of photos: rows of `shape` and `dtype` in the buffers."""

    def __init__(self, stages: list[Stage], dtype: torch.dtype, gpu: bool):
        self.plan = plan(stages, dtype, gpu)
        self.shape = (self.plan.crop.height, self.plan.crop.width, 3)
        self.dtype = self.plan.buffer_dtype
        self.in_place = self.plan.fused or self.plan.normalize is None  # the kernels write the rows themselves
        self._colours, self._scale_shift = tuple(self.plan.colours.tolist()), self.plan.scale_shift
        self._paints = [(stage, self.plan.number_of(stage.colour)) for stage in self.plan.paints]
        run = self.plan
        # Whether anything is left to do behind the kernels, in the threads
        self.finishes = bool(run.pixels or not self.in_place or run.paints or (run.floats and not run.on_device))
        self.callables = [stage for stage in stages if isinstance(stage, OnImage)]
        self.on_device = self._finish_on_device if self.plan.on_device else None
        self.companion = Drawn(self.plan, self.shape) if self.plan.on_device and self.plan.floats else None

    def _finish_on_device(self, images: torch.Tensor, drawn: torch.Tensor | None = None) -> torch.Tensor:
        """What is left for the device: normalize, and the stages behind it with what Drawn has drawn for them."""
        images, start = self.plan.on_device.on_device(images, self.plan.dtype), 0
        for stage in self.plan.floats:
            stage.on_device(images, drawn[:, start : start + stage.drawn])
            start += stage.drawn
        return images

    def room(self, rows: int) -> np.ndarray | None:
        """Memory of a thread for so many images that are on their way, where it needs some."""
        return None if self.in_place else np.empty((rows, *self.shape), np.uint8)

    def view(self, images: np.ndarray) -> View:
        """What the kernels are told of the memory of the cropped images."""
        return View(images, self._colours, self._scale_shift)

    def finish(self, images: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Run the stages behind the crop: images (uint8, n x H x W x 3, changed; `target` itself if in_place)."""
        run = self.plan
        for stage in run.pixels:
            stage.apply(images, keys)
        if not self.in_place:
            run.normalize.apply(images, target, run.dtype)
        for stage, colour in self._paints:
            stage.paint(target, keys, colour)
        for stage in () if run.on_device else run.floats:
            stage.apply(target, keys, run.dtype)

    def to_batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Images as N x 3 x H x W, of the dtype whose bits they are."""
        # By NumPy: permute() gives up the GIL, and to get it back takes longer than to draw a small batch
        shown = torch.from_numpy(rows.numpy().transpose(0, 3, 1, 2))
        return shown.view(self.plan.dtype) if rows.dtype == torch.uint16 else shown

    @property
    def description(self) -> str:
        """What normalises on a GPU."""
        stage = self.plan.on_device
        return f"normalize on the GPU by {stage.on_device_by(self.plan.dtype)}" if stage else ""


class Drawn(Decoder):
    """What the stages that are left for the device draw for each image: a column that the device gets with it."""

    dtype = np.dtype(np.int64)

    def __init__(self, plan: Plan, image_shape: tuple[int, int, int]):
        self._stages, self._size = plan.floats, image_shape[:2]
        self.shape = (sum(stage.drawn for stage in self._stages),)

    def fill(self, worker: None, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Draw for `samples`."""
        np.concatenate([stage.draw(keys, *self._size) for stage in self._stages], axis=1, out=target)
