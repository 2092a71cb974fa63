"""Batches of arrays that are images: H x W or H x W x C of uint8, uint16 or float32, through stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from beton.errors import UserError
from beton.format.fields._pixels import cut
from beton.format.fields.base import Decoder
from beton.stages.base import Crop, Normalize, Pixels, colour_of
from beton.stages.like import Like
from beton.stages.parse import parse

# What a value of each dtype is divided by, before normalize takes its mean and standard deviation
UNITS = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


class ArrayImageDecoder(Decoder):
    """Crops, mirrors, moves and normalises one image after the other.

    With the same stages, an array image and a photo of the same size get the same crop and are mirrored alike.
    """

    def __init__(self, column, mapped, stages: str | Like, dtype: torch.dtype):
        field, name = column.field, column.name
        if field.dtype not in UNITS or len(field.shape) not in (2, 3) or (len(field.shape) == 3 and not field.shape[2]):
            what = f"the field '{name}' holds no images but arrays of {field.dtype}, {field.shape}"
            raise UserError(what, f"leave out {stages!r}: stages need H x W (x C) of {', '.join(UNITS)}")
        self._column, self._mapped = column, mapped
        self.channels = field.shape[2] if len(field.shape) == 3 else 1
        self._like = stages if isinstance(stages, Like) else None
        self._crop, *rest = self._like.stages(self.channels) if self._like else parse(stages, self.channels)
        for stage in rest:
            if not stage.any_pixels:
                known = "rrc, center, src, flip, vflip, translate and normalize"
                raise UserError(
                    f"'{stage.name}' is for photos, and the field '{name}' holds arrays", f"give it {known}"
                )
        self._pixels = [stage for stage in rest if isinstance(stage, Pixels)]
        self._normalize = next((stage for stage in rest if isinstance(stage, Normalize)), None)
        self._scales = self._normalize and self._normalize.scales_and_shifts(self.channels, UNITS[field.dtype])
        self._result = dtype if self._normalize else None
        self.shape = (self._crop.height, self._crop.width, self.channels)
        self._stored, self.dtype = field.stored_dtype.newbyteorder("="), field.stored_dtype.newbyteorder("=")
        if self._normalize:
            self.dtype = np.dtype(np.float32 if dtype == torch.float32 else np.uint16)
        self._fill = None if self._crop.fill is None else colour_of(self._crop.fill, self.channels)

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Run all stages for a few samples. Raises DamagedSample."""
        images = target if self._normalize is None else np.empty((len(samples), *self.shape), self._stored)
        for row, sample in enumerate(samples.tolist()):
            images[row] = self._cropped(sample, keys[row : row + 1])
        for stage in self._pixels:
            stage.apply(images, keys)
        if self._normalize is None:
            return
        numbers = np.multiply(images, self._scales[0], out=target if target.dtype == np.float32 else None)
        numbers += self._scales[1]
        if target.dtype != np.float32:
            target[:] = torch.from_numpy(numbers).to(self._result).view(torch.uint16).numpy()

    def _cropped(self, sample: int, key: np.ndarray) -> np.ndarray:
        try:
            payload = self._mapped.payload(self._column, sample)
            array = self._column.field.array_of(self._column.records[sample], payload)
            if not array.size:
                raise ValueError("it has no pixels")
        except ValueError as error:
            raise self._mapped.damaged(sample, self._column.name, str(error)) from None
        pixels = array.reshape(*array.shape[:2], self.channels)
        sides = tuple(np.array([side]) for side in pixels.shape[:2])
        if self._like:
            place = self._like.places(self._places, np.array([sample]), key, sides)[0]
        else:
            place = self._places(*sides, key)[0]
        return cut(pixels, place, self._crop.height, self._crop.width, self._fill)

    def _places(self, heights: np.ndarray, widths: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Boxes and windows (int64, n x 9)."""
        crop: Crop = self._crop
        return np.concatenate([crop.boxes(heights, widths, keys), crop.windows(heights, widths, keys)], axis=1)

    def to_batch(self, rows: torch.Tensor) -> torch.Tensor:
        """Images as N x C x H x W, of the dtype whose bits they are."""
        if self._result is not None and rows.dtype == torch.uint16:
            rows = rows.view(self._result)
        return rows.permute(0, 3, 1, 2)
