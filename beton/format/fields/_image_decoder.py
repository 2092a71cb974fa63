"""Batches of images: the kernels crop, resize and normalise; stages that they do not know run behind them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from beton.errors import UserError
from beton.format.fields._image_output import Output
from beton.format.fields._share import Share
from beton.format.fields.base import Decoder
from beton.format.modes import by_code
from beton.kernels import CODES, DECODE_WHOLE, MOST_VIEWS, Records, close_scratch, crop_all, open_scratch, times
from beton.loading.times import spending
from beton.rng import further_keys
from beton.stages.base import Float
from beton.stages.like import Like
from beton.stages.parse import parse

_VIEW_DRAW = 1 << 21  # the keys of views are draws of none of the stages


@dataclass
class _Worker:
    """What one thread needs for itself: memory that the kernels use again, and room for some images of each output.

    `kernels` (nanoseconds) and `spent` (seconds by part) are where its time went, if it is counted.
    """

    scratch: int
    rooms: list[np.ndarray | None]
    kernels: np.ndarray | None = None
    spent: dict[str, float] | None = None


class ImageDecoder(Decoder):
    """Runs pipelines of stages on the images of a column: each photo is decoded once for all `outputs`.

    `like`: another column, as whose images these are cut out.
    """

    def __init__(self, column, mapped, outputs: list[Output], like: Like | None = None):
        self._column, self._mapped, self._outputs, self._like = column, mapped, outputs, like
        self._records = Records(column.records, column.sizes)
        self._sides = column.field.sides(column.records)
        # Where nothing but mirrors and moves differs from photo to photo
        alike = {output: None if like else output.plan.crop_of_all(*self._sides) for output in dict.fromkeys(outputs)}
        self._crops = [alike[output] for output in outputs]
        self.buffers = [(output.shape, output.dtype) for output in outputs]
        self.on_device, self.companion = outputs[0].on_device, outputs[0].companion
        self._callables = [stage for output in dict.fromkeys(outputs) for stage in output.callables]
        self._share = Share(column.name, self._callables) if self._callables else None

    @property
    def description(self) -> str:
        """What normalises on a GPU."""
        return self._outputs[0].description

    def open_worker(self, rows: int) -> _Worker:
        """Memory of a thread."""
        worker = _Worker(open_scratch(), [output.room(rows) for output in self._outputs])
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

    def keys_of(self, output: int, keys: np.ndarray) -> np.ndarray:
        """The random keys of an output."""
        return keys

    def draw(self, samples: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """What the kernels do with each image, for each output: int64, n x outputs x 12 (beton.stages.plan.Plan)."""
        places = np.empty((len(samples), len(self._outputs), 12), np.int64)
        for number, (output, crop) in enumerate(zip(self._outputs, self._crops, strict=True)):
            own = self.keys_of(number, keys)
            found = self._places(output, samples, own) if crop is None else output.plan.places_of(crop, own)
            places[:, number] = found
        return places

    def fill(self, worker: _Worker, samples: np.ndarray, keys: np.ndarray, *targets: np.ndarray, drawn: np.ndarray):
        """Run all stages for a few samples, each output into its target. Raises DamagedSample."""
        if self._share is None:
            return self._fill(worker, samples, keys, targets, drawn)
        started, before = time.perf_counter(), [stage.seconds for stage in self._callables]
        self._fill(worker, samples, keys, targets, drawn)
        own = [stage.seconds - was for stage, was in zip(self._callables, before, strict=True)]
        return self._share.add(len(samples), time.perf_counter() - started, own)

    def _fill(self, worker: _Worker, samples: np.ndarray, keys: np.ndarray, targets: tuple, places: np.ndarray) -> None:
        rooms = zip(self._outputs, targets, worker.rooms, strict=True)
        images = [target if output.in_place else room[: len(samples)] for output, target, room in rooms]
        self._crop(worker, samples, places, images)
        with spending(worker.spent, "augment"):
            for number, (output, cropped, target) in enumerate(zip(self._outputs, images, targets, strict=True)):
                if output.finishes:
                    output.finish(cropped, self.keys_of(number, keys), target)

    def _places(self, output: Output, samples: np.ndarray, keys: np.ndarray) -> np.ndarray:
        sides = tuple(side[samples] for side in self._sides)
        if self._like:
            return self._like.places(output.plan.places, samples, keys, sides)
        return output.plan.places(*sides, keys)

    def _crop(self, worker: _Worker, samples: np.ndarray, places: np.ndarray, images: list[np.ndarray]) -> None:
        """Crop the photos `samples` (int64, n) into images (n x H x W x 3 of each output)."""
        start = 0
        while start < len(samples):
            rest = slice(start, None)
            views = self._views(images, rest)
            code, n = crop_all(worker.scratch, self._mapped.bytes, self._records, samples[rest], places[rest], views)
            if code == 0:
                return
            row = start + n
            if code != DECODE_WHOLE:
                raise self._mapped.damaged(int(samples[row]), self._column.name, CODES[code])
            one = slice(row, row + 1)
            self._crop_whole(worker, int(samples[row]), places[one], self._views(images, one))
            start = row + 1

    def _views(self, images: list[np.ndarray], rows: slice) -> list:
        return [output.view(cropped[rows]) for output, cropped in zip(self._outputs, images, strict=True)]

    def _crop_whole(self, worker: _Worker, sample: int, places: np.ndarray, views: list) -> None:
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
        one = Records(record, np.array([pixels.size]))
        crop_all(worker.scratch, pixels, one, np.zeros(1, np.int64), places, views)

    def to_batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Images as N x 3 x H x W."""
        return self._outputs[0].to_batch(rows)


def keys_of_view(keys: np.ndarray, view: int) -> np.ndarray:
    """The keys (uint64) of a view: of (seed, epoch, sample, number of the view)."""
    return further_keys(keys, _VIEW_DRAW, view)


class ViewsDecoder(ImageDecoder):
    """Several views of each image, by name: (stages, how many). Each view has a random key of its own.

    A column is the tuple of its views, each N x 3 x H x W.
    """

    def __init__(self, column, mapped, views: Mapping[str, tuple[str, int]], dtype: torch.dtype, gpu: bool):
        self.columns, self._counts, outputs = tuple(views), [], []
        for name, given in views.items():
            stages, count = _checked(name, given)
            self._counts.append(count)
            parsed = parse(stages)
            # Each view draws for itself: what follows normalize is done in the threads
            numbers = any(isinstance(stage, Float) for stage in parsed)
            outputs += [Output(parsed, dtype, gpu and not numbers)] * count
        if len(outputs) > MOST_VIEWS:
            raise UserError(f"`views` are {len(outputs)} images of each sample", f"give at most {MOST_VIEWS}")
        super().__init__(column, mapped, outputs)
        self.companion, self.on_device = None, tuple(of_it[0].on_device for of_it in self._grouped(outputs))

    def keys_of(self, output: int, keys: np.ndarray) -> np.ndarray:
        """A key for each view."""
        return keys_of_view(keys, output)

    def _grouped(self, values: list) -> list[tuple]:
        ends = np.cumsum([0, *self._counts])
        return [tuple(values[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)]

    def to_batch(self, *rows: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], ...]:
        """For each name the tuple of its views."""
        return tuple(self._grouped([output.to_batch(row) for output, row in zip(self._outputs, rows, strict=True)]))


def _checked(name: str, given) -> tuple[str, int]:
    """Stages and count of a view; raises UserError."""
    if isinstance(given, (tuple, list)) and len(given) == 2:
        stages, count = given
        if isinstance(stages, (str, tuple)) and isinstance(count, int) and not isinstance(count, bool) and count > 0:
            return stages, count
    what = f"the view '{name}' is {given!r}, not (stages, how many)"
    raise UserError(what, "give, e.g., views={'global': ('rrc(224)|flip|normalize', 2)}")


_RAW = next(code for code, mode in by_code().items() if mode.name == "raw")
