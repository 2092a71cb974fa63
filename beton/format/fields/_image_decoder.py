"""Batches of images: the kernels crop, resize and normalise; stages that they do not know run behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from beton.errors import DamagedSample
from beton.format.fields.base import Decoder
from beton.format.modes import by_code
from beton.kernels import CODES, DECODE_WHOLE, close_scratch, open_scratch
from beton.kernels.jit import jit, kernels_crop
from beton.stages.parse import parse
from beton.stages.plan import plan


@jit
def _crop(scratch, file, records, sizes, samples, boxes, windows, mirrors, shape, pixels, numbers, scale_shift):
    """Fill images with rectangle boxes[n] of photo samples[n]; returns (code, n) of the first failure, or (0, -1).

    `shape` is height and width; `pixels` and `numbers` are addresses of the first image, one of the two being 0.
    """
    height, width = shape
    count = height * width * 3
    for n in range(len(samples)):
        photo = records[samples[n]]
        code = kernels_crop(
            scratch, file.ctypes.data + np.int64(photo.data_ptr), np.uint64(sizes[samples[n]]), np.int64(photo.mode),
            np.int64(photo.height), np.int64(photo.width), boxes[n].ctypes.data, windows[n].ctypes.data,
            np.int64(mirrors[n]), height, width, pixels + n * count if pixels else 0,
            numbers + 4 * n * count if numbers else 0, scale_shift.ctypes.data,
        )  # fmt: skip
        if code != 0:
            return code, n
    return 0, -1


@dataclass
class _Worker:
    """What one thread needs for itself: memory that the kernels use again, and room for some images."""

    scratch: int
    images: np.ndarray


class ImageDecoder(Decoder):
    """Runs a pipeline of stages on the images of a column."""

    def __init__(self, column, mapped, stages: str, dtype: torch.dtype, gpu: bool):
        self._column, self._mapped = column, mapped
        self._heights = column.records["height"].astype(np.int64)
        self._widths = column.records["width"].astype(np.int64)
        self._plan = plan(parse(stages), dtype, gpu)
        self.shape = (self._plan.crop.height, self._plan.crop.width, 3)
        self.dtype = self._plan.buffer_dtype
        if self._plan.on_device:
            self.on_device = lambda images: self._plan.on_device.on_device(images, dtype)

    @property
    def description(self) -> str:
        """What normalises on a GPU."""
        stage = self._plan.on_device
        return f"normalize on the GPU by {stage.on_device_by(self._plan.dtype)}" if stage else ""

    def open_worker(self, rows: int) -> _Worker:
        """Memory of a thread."""
        return _Worker(open_scratch(), np.empty((rows, *self.shape), np.uint8))

    def close_worker(self, worker: _Worker) -> None:
        """Free it."""
        close_scratch(worker.scratch)

    def fill(self, worker: _Worker, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Run all stages for a few samples. Raises DamagedSample."""
        run = self._plan
        in_place = run.fused or run.normalize is None
        images = target if in_place else worker.images[: len(samples)]
        self._crop(worker.scratch, samples, keys, images)
        for stage in run.pixels:
            stage.apply(images, keys)
        if not in_place:
            run.normalize.apply(images, target, run.dtype)
        for stage in run.floats:
            stage.apply(target, keys, run.dtype)

    def _crop(self, scratch: int, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Crop the photos `samples` (int64, n) into target (n x H x W x 3): pixels (uint8), or floats (float32)."""
        heights, widths, run = self._heights[samples], self._widths[samples], self._plan
        boxes = run.crop.boxes(heights, widths, keys)
        windows = run.crop.windows(heights, widths, keys)
        mirrors = run.mirror.mirrors(keys) if run.mirror else np.zeros(len(keys), np.bool_)
        file, records, sizes, start = self._mapped.bytes, self._column.records, self._column.sizes, 0
        while start < len(samples):
            rest = slice(start, None)
            code, n = self._call(
                scratch, file, records, sizes, samples[rest], boxes[rest], windows[rest], mirrors[rest], target[rest]
            )
            if code == 0:
                return
            row = start + n
            if code != DECODE_WHOLE:
                raise DamagedSample(self._mapped.path, int(samples[row]), self._column.name, CODES[code])
            one = slice(row, row + 1)
            self._crop_whole(scratch, int(samples[row]), boxes[one], windows[one], mirrors[one], target[one])
            start = row + 1

    def _call(self, scratch, file, records, sizes, samples, boxes, windows, mirrors, target) -> tuple[int, int]:
        address = target.ctypes.data
        pixels, numbers = (address, 0) if target.dtype == np.uint8 else (0, address)
        shape, scale_shift = self.shape[:2], self._plan.scale_shift
        return _crop(
            scratch, file, records, sizes, samples, boxes, windows, mirrors, shape, pixels, numbers, scale_shift
        )

    def _crop_whole(self, scratch: int, sample: int, box, window, mirror, target: np.ndarray) -> None:
        """Crop a photo that the kernels cannot decode: it is decoded by its mode, and cropped as raw pixels."""
        record = self._column.records[sample : sample + 1].copy()
        mode, height, width = by_code()[int(record["mode"][0])], int(record["height"][0]), int(record["width"][0])
        payload = self._mapped.payload(self._column, sample)
        try:
            pixels = np.ascontiguousarray(mode.decode(payload, height, width)).reshape(-1)
        except ValueError as error:
            raise DamagedSample(self._mapped.path, sample, self._column.name, str(error)) from None
        record["mode"], record["data_ptr"] = _RAW, 0
        sizes, first = np.array([pixels.size]), np.zeros(1, np.int64)
        self._call(scratch, pixels, record, sizes, first, box, window, mirror, target)

    def to_tensor(self, rows: torch.Tensor) -> torch.Tensor:
        """Images as N x 3 x H x W, of the dtype whose bits they are."""
        if rows.dtype == torch.uint16:
            rows = rows.view(self._plan.dtype)
        return rows.permute(0, 3, 1, 2)


_RAW = next(code for code, mode in by_code().items() if mode.name == "raw")
