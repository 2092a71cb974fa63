"""Rows of masks for batches: pixels chosen as the geometry of their images says."""

from __future__ import annotations

from typing import Any

import numpy as np

from beton.errors import UserError
from beton.format.fields.base import Decoder
from beton.kernels.jit import jit
from beton.stages.geometry import Geometry, moving, nearest
from beton.stages.like import Like
from beton.stages.parse import parse


@jit
def _choose(mask, rows, columns, fill, target):
    for y in range(len(rows)):
        for x in range(len(columns)):
            if rows[y] < 0 or columns[x] < 0:
                target[y, x] = fill
            else:
                target[y, x] = mask[rows[y], columns[x]]


class MaskDecoder(Decoder):
    """Cuts masks out as their images are."""

    def __init__(self, column, mapped, stages):
        self._column, self._mapped, self._field = column, mapped, column.field
        self._sides = self._field.sides(column.records)
        self._like = stages if isinstance(stages, Like) else None
        parsed = self._like.stages() if self._like else parse(stages)  # colours of the image say nothing here
        self._stages = moving(parsed, f"the mask '{column.name}'")
        fill = self._like.fill if self._like else 0
        self.dtype = self._field.stored_dtype.newbyteorder("=")
        if self.dtype != np.bool_ and not np.iinfo(self.dtype).min <= fill <= np.iinfo(self.dtype).max:
            raise UserError(f"fill={fill} is no {self._field.dtype}", "write the mask as int16, or give another")
        self._fill = self.dtype.type(fill)
        self.shape = (self._stages[0].height, self._stages[0].width)

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Cut the masks of `samples` into target (n x H x W). Raises DamagedSample."""
        own = [side[samples] for side in self._sides]
        sides = self._like.sides(samples) if self._like else own
        geometry = Geometry(self._stages, *sides, keys)
        lines = [geometry.lines(axis) for axis in (0, 1)]
        reflect = self._stages[0].fill is None
        for n, sample in enumerate(samples.tolist()):
            places = []
            for axis in (0, 1):
                start, length = (int(geometry.boxes[n, axis + at]) for at in (0, 2))
                whole = own[axis][n] / sides[axis][n]
                places.append(
                    nearest(lines[axis][n], start, length, int(geometry.windows[n, axis]), reflect, float(whole))
                )
            try:
                payload = self._mapped.payload(self._column, sample)
                mask = self._field.value(self._column.records[sample], payload)
            except ValueError as error:
                raise self._mapped.damaged(sample, self._column.name, str(error)) from None
            _choose(mask, *places, self._fill, target[n])
