"""Batches of images: the kernels crop, resize and normalise; stages that they do not know run behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from beton.format.fields.base import Decoder
from beton.format.modes import by_code
from beton.kernels import CODES, DECODE_WHOLE, close_scratch, crop_all, open_scratch, times
from beton.loading.times import spending
from beton.stages.parse import parse
from beton.stages.plan import plan


@dataclass
class _Worker:
    """What one thread needs for itself: memory that the kernels use again, and room for some images.

    `kernels` (nanoseconds) and `spent` (seconds by part) are where its time went, if it is counted.
    """

    scratch: int
    images: np.ndarray
    kernels: Any = None
    spent: dict[str, float] | None = None


class ImageDecoder(Decoder):
    """Runs a pipeline of stages on the images of a column."""

    def __init__(self, column, mapped, stages: str, dtype: torch.dtype, gpu: bool):
        self._column, self._mapped = column, mapped
        self._heights = column.records["height"].astype(np.int64)
        self._widths = column.records["width"].astype(np.int64)
        self._plan = plan(parse(stages), dtype, gpu)
        self.shape = (self._plan.crop.height, self._plan.crop.width, 3)
        self.dtype = self._plan.buffer_dtype
        self._colours, self._scale_shift = self._plan.colours, self._plan.scale_shift
        self._paints = [(stage, self._plan.number_of(stage.colour)) for stage in self._plan.paints]
        if self._plan.on_device:
            self.on_device = self._finish
            self.companion = _Drawn(self._plan, self.shape) if self._plan.floats else None

    def _finish(self, images: torch.Tensor, drawn: torch.Tensor | None = None) -> torch.Tensor:
        """What is left for the device: normalize, and the stages behind it with what _Drawn has drawn for them."""
        images, start = self._plan.on_device.on_device(images, self._plan.dtype), 0
        for stage in self._plan.floats:
            stage.on_device(images, drawn[:, start : start + stage.drawn])
            start += stage.drawn
        return images

    @property
    def description(self) -> str:
        """What normalises on a GPU."""
        stage = self._plan.on_device
        return f"normalize on the GPU by {stage.on_device_by(self._plan.dtype)}" if stage else ""

    def open_worker(self, rows: int) -> _Worker:
        """Memory of a thread."""
        worker = _Worker(open_scratch(), np.empty((rows, *self.shape), np.uint8))
        if self.timed:
            worker.kernels, worker.spent = times(worker.scratch), {"decode": 0.0, "augment": 0.0}
        return worker

    def spent(self, worker: _Worker) -> dict[str, float]:
        """Reading, decoding, resizing (the kernels) and augmenting (the stages that they do not know)."""
        read, decode, resize = (worker.kernels * 1e-9).tolist()
        whole = worker.spent
        return {"read": read, "decode": decode + whole["decode"], "resize": resize, "augment": whole["augment"]}

    def close_worker(self, worker: _Worker) -> None:
        """Free it."""
        close_scratch(worker.scratch)

    def fill(self, worker: _Worker, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Run all stages for a few samples. Raises DamagedSample."""
        run = self._plan
        in_place = run.fused or run.normalize is None
        images = target if in_place else worker.images[: len(samples)]
        self._crop(worker, samples, keys, images)
        with spending(worker.spent, "augment"):
            for stage in run.pixels:
                stage.apply(images, keys)
            if not in_place:
                run.normalize.apply(images, target, run.dtype)
            for stage, colour in self._paints:
                stage.paint(target, keys, colour)
            for stage in () if run.on_device else run.floats:
                stage.apply(target, keys, run.dtype)

    def _crop(self, worker: _Worker, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Crop the photos `samples` (int64, n) into target (n x H x W x 3): pixels (uint8), or floats (float32)."""
        places = self._plan.places(self._heights[samples], self._widths[samples], keys)
        file, records, sizes, start = self._mapped.bytes, self._column.records, self._column.sizes, 0
        while start < len(samples):
            rest = slice(start, None)
            code, n = self._call(worker.scratch, file, records, sizes, samples[rest], places[rest], target[rest])
            if code == 0:
                return
            row = start + n
            if code != DECODE_WHOLE:
                raise self._mapped.damaged(int(samples[row]), self._column.name, CODES[code])
            one = slice(row, row + 1)
            self._crop_whole(worker, int(samples[row]), places[one], target[one])
            start = row + 1

    def _call(self, scratch, file, records, sizes, samples, places, target) -> tuple[int, int]:
        about = self._colours, self._scale_shift
        return crop_all(scratch, file, records, sizes, samples, places, *about, target)

    def _crop_whole(self, worker: _Worker, sample: int, place: np.ndarray, target: np.ndarray) -> None:
        """Crop a photo that the kernels cannot decode: it is decoded by its mode, and cropped as raw pixels."""
        record = self._column.records[sample : sample + 1].copy()
        mode, height, width = by_code()[int(record["mode"][0])], int(record["height"][0]), int(record["width"][0])
        payload = self._mapped.payload(self._column, sample)
        try:
            with spending(worker.spent, "decode"):
                pixels = np.ascontiguousarray(mode.decode(payload, height, width)).reshape(-1)
        except ValueError as error:
            raise self._mapped.damaged(sample, self._column.name, str(error)) from None
        record["mode"], record["data_ptr"] = _RAW, 0
        sizes, first = np.array([pixels.size]), np.zeros(1, np.int64)
        self._call(worker.scratch, pixels, record, sizes, first, place, target)

    def to_batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Images as N x 3 x H x W, of the dtype whose bits they are."""
        if rows.dtype == torch.uint16:
            rows = rows.view(self._plan.dtype)
        return rows.permute(0, 3, 1, 2)


class _Drawn(Decoder):
    """What the stages that are left for the device draw for each image: a column that the device gets with it."""

    dtype = np.dtype(np.int64)

    def __init__(self, plan, image_shape: tuple[int, int, int]):
        self._stages, self._size = plan.floats, image_shape[:2]
        self.shape = (sum(stage.drawn for stage in self._stages),)

    def fill(self, worker: None, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Draw for `samples`."""
        np.concatenate([stage.draw(keys, *self._size) for stage in self._stages], axis=1, out=target)


_RAW = next(code for code, mode in by_code().items() if mode.name == "raw")
