"""Batches of arrays and tensors as they are stored."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import torch

from beton.errors import UserError
from beton.format.fields._array import Numbers, check_bools
from beton.format.fields.base import Decoder
from beton.format.fields.tensor import as_tensor
from beton.kernels.jit import jit
from beton.stages.parse import call

Padded = namedtuple("Padded", ("values", "lengths"))


def open_decoder(column, mapped, stages: str | None, dtype: torch.dtype) -> Decoder:
    """What makes batches of a column of array or tensor; raises UserError for stages other than `pad`."""
    field = column.field
    if stages is None:
        return ObjectDecoder(column, mapped) if field.varies or not field.torch_has else FixedDecoder(column, mapped)
    name, values, named = call(stages.strip()) if isinstance(stages, str) else ("like", (), ())
    if name != "pad" or len(values) > 1 or not set(named) <= {"value"} or (values and named):
        kind = field.type_names[column.type_id]
        what = f"the field '{column.name}' holds {kind}s, which take no stages but pad(value)"
        raise UserError(what, f"leave out {stages!r}")
    if not field.varies or not field.torch_has:
        raise UserError(f"the arrays of the field '{column.name}' cannot be padded", "leave out 'pad'")
    (value,) = values or named.values() or (0,)
    try:
        filled = torch.full((1,), value, dtype=getattr(torch, field.dtype))
    except (TypeError, RuntimeError):
        raise UserError(f"{value!r} is no {field.dtype}", f"give {column.name}='pad(0)', or the like") from None
    return PaddedDecoder(column, mapped, filled)


@jit
def _copy(file, addresses, rows):
    for n in range(len(addresses)):
        start = addresses[n]
        for i in range(rows.shape[1]):
            rows[n, i] = file[start + i]


class FixedDecoder(Decoder):
    """Copies rows of one shape."""

    def __init__(self, column, mapped):
        self._column, self._mapped, self._field = column, mapped, column.field
        self.shape, self.dtype = self._field.shape, self._field.stored_dtype.newbyteorder("=")

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Copy the arrays of `samples` into target (n x shape). Raises DamagedSample."""
        if not target.size:
            return
        rows = target.reshape(len(samples), -1).view(np.uint8)
        _copy(self._mapped.bytes, self._column.addresses[samples].astype(np.int64), rows)
        if not self._field.stored_dtype.isnative:
            target.byteswap(inplace=True)
        try:
            check_bools(target)
        except ValueError as error:
            sample = samples[(rows > 1).any(axis=1).argmax()]
            raise self._mapped.damaged(int(sample), self._column.name, str(error)) from None

    def to_batch(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows, of the field's dtype."""
        dtype = getattr(torch, self._field.dtype)
        return rows if rows.dtype == dtype else rows.view(dtype)


class ObjectDecoder(Decoder):
    """Reads arrays one by one: tensors, or arrays of dtypes that torch lacks. A batch is the list of them."""

    dtype = np.dtype(object)

    def __init__(self, column, mapped):
        self._column, self._mapped, self._field = column, mapped, column.field

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, target: np.ndarray) -> None:
        """Put the arrays of `samples` into target (object, n). Raises DamagedSample."""
        field: Numbers = self._field
        for row, sample in enumerate(samples.tolist()):
            try:
                array = field.array_of(self._column.records[sample], self._mapped.payload(self._column, sample))
            except ValueError as error:
                raise self._mapped.damaged(sample, self._column.name, str(error)) from None
            target[row] = as_tensor(array, field.dtype) if field.torch_has else array


class PaddedDecoder(ObjectDecoder):
    """The same as one tensor, filled up to the longest of the batch."""

    def __init__(self, column, mapped, filled: torch.Tensor):
        super().__init__(column, mapped)
        self._filled = filled
        self._sides = [place for place, side in enumerate(self._field.shape) if side is None]

    def to_batch(self, rows: list) -> Padded:
        """(values, lengths): N x the longest, and int64, N (or N x the number of sides that vary)."""
        shapes = torch.tensor([row.shape for row in rows])
        values = self._filled.expand(len(rows), *shapes.amax(0).tolist()).clone(memory_format=torch.contiguous_format)
        for row, tensor in enumerate(rows):
            values[(row, *map(slice, tensor.shape))] = tensor
        lengths = shapes[:, self._sides]
        return Padded(values, lengths[:, 0] if len(self._sides) == 1 else lengths)
