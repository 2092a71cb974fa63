"""with_geometry: which part of its photo an image shows, to move boxes and keypoints as it was moved."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import torch

from beton.format.fields._image_decoder import keys_of_view
from beton.format.fields.base import Decoder
from beton.stages import geometry
from beton.stages.base import Stage

# crop: float32, N x 4: top, left, height, width in pixels of the stored photo, beyond its edges where the image shows
# something else there. mirrored: bool, N x 2: left-right, top-bottom. size: int64, N x 2: the stored photo's height,
# width
Geometry = namedtuple("Geometry", ("crop", "mirrored", "size"))
_NUMBERS = 8


class GeometryDecoder(Decoder):
    """The geometry of each image of a column, or of each view (`counts`: how many each name of `columns` has)."""

    dtype = np.dtype(np.float32)

    def __init__(self, column, stages: list[list[Stage]], names: list[str], counts: list[int] | None = None):
        self._sides, self._counts = column.field.sides(column.records), counts
        what = f"`with_geometry` ('{column.name}')"
        self._stages = [geometry.moving(of_one, what) for of_one in stages]
        if counts:
            self.columns, self.on_device = tuple(names), (None,) * len(names)
        self.shape = (sum(counts) if counts else 1, _NUMBERS)

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Write the geometries of `samples` into target (float32, n x images x 8)."""
        sides = [side[samples] for side in self._sides]
        stages = [of_one for of_one, count in zip(self._stages, self._counts or [1], strict=True) for _ in range(count)]
        for number, of_one in enumerate(stages):
            own = keys_of_view(keys, number) if self._counts else keys
            found = geometry.Geometry(of_one, *sides, own)
            target[:, number, :4] = found.rectangles()
            target[:, number, 4], target[:, number, 5] = found.mirrored(1), found.mirrored(0)
            target[:, number, 6], target[:, number, 7] = sides

    def to_batch(self, rows: torch.Tensor) -> Any:
        """Geometry, or for each name of the views the tuple of theirs."""
        made = [Geometry(one[:, :4], one[:, 4:6] > 0, one[:, 6:].long()) for one in rows.unbind(1)]
        if not self._counts:
            return made[0]
        ends = np.cumsum([0, *self._counts])
        return tuple(tuple(made[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True))
