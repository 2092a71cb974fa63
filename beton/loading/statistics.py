"""Mean and standard deviation of the pixels of a column, as normalize takes them."""

from __future__ import annotations

from collections import namedtuple
from contextlib import closing

import numpy as np

from beton.errors import DamagedSample, UserError
from beton.format.fields._array_image_decoder import UNITS
from beton.format.fields.array import Array
from beton.format.fields.image import Image
from beton.format.mapped import MappedFile
from beton.format.tables import Column
from beton.workers import in_order

Statistics = namedtuple("Statistics", ("mean", "std"))
_CHUNK = 16


def unit_of(column: Column) -> float:
    """What the pixels of a column are divided by. Raises UserError where it holds no images."""
    field = column.field
    if isinstance(field, Image):
        return 255.0
    if isinstance(field, Array) and len(field.shape) in (2, 3) and field.dtype in UNITS:
        return UNITS[field.dtype]
    raise UserError(f"the field '{column.name}' holds no images", "name one that does")


def statistics(mapped: MappedFile, column: Column, samples: np.ndarray, workers: int, left_out) -> Statistics:
    """Mean and standard deviation of each channel over the whole of the images `samples`, each of the same weight.

    `left_out(error)` is called with what is damaged; it raises, or the image is left out.
    """
    unit = unit_of(column)

    def look(place: int) -> np.ndarray | DamagedSample:
        sample = int(samples[place])
        one = samples[place : place + 1]
        try:
            mapped.check_numbers(one)
            mapped.check(one)
            payload = mapped.payload(column, sample).tobytes()
            mapped.check_read()
            mapped.check_whole(one)
            pixels = column.field.value(column.records[sample], payload)
        except DamagedSample as error:
            mapped.check_read()
            mapped.check_whole(one)  # it is not damaged where the file was truncated
            return error
        except ValueError as error:
            return mapped.damaged(sample, column.name, str(error))
        flat = pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1)
        if not len(flat):
            return mapped.damaged(sample, column.name, "it has no pixels")
        flat = flat.astype(np.float64) / unit
        return np.stack([flat.mean(axis=0), (flat**2).mean(axis=0)])

    total, count = 0.0, 0
    with closing(in_order(look, 0, len(samples), workers, _CHUNK)) as found:
        for _, moments in found:
            if isinstance(moments, DamagedSample):
                left_out(moments)
            else:
                total, count = total + moments, count + 1
    if not count:
        raise UserError(f"none of the images of {mapped.path} can be read", "write the dataset again")
    mean, square = total / count
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return Statistics(tuple(mean.tolist()), tuple(std.tolist()))
