"""FFCV's DatasetWriter on this library's: the file appears whole or not at all, and a fault ends it with an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from beton import progress, system
from beton.errors import UserError
from beton.ffcv.custom import Written
from beton.ffcv.fields import (
    BytesField,
    FloatField,
    IntField,
    JSONField,
    NDArrayField,
    RGBImageField,
    TorchTensorField,
)
from beton.ffcv.fields.base import Field
from beton.ffcv.fields.bytes import as_bytes
from beton.ffcv.shards import Shards
from beton.ffcv.types import CUSTOM
from beton.ffcv.utils import is_power_of_2
from beton.format import fields as library
from beton.format.fields.base import Field as LibraryField
from beton.format.records import LONGEST_NAME
from beton.writing.options import WriteOptions
from beton.writing.writer import write

_FEWEST = 100  # samples of a chunk: to hand one out takes longer than to read a small sample
MIN_PAGE_SIZE, MAX_PAGE_SIZE = 1 << 21, 1 << 32


class DatasetWriter:
    """Writes samples whose values `fields` names, in their order, to the file `fname`.

    `num_workers`: processes that read and encode, no more than there are cores. `page_size` may be left as it is: pages
    grow with the samples. No card is written beside the file.
    """

    def __init__(
        self, fname: str, fields: Mapping[str, Field], page_size: int = 4 * MIN_PAGE_SIZE, num_workers: int = -1
    ):
        if not is_power_of_2(page_size):
            raise ValueError(f"page_size={page_size} is not a power of 2")
        if not MIN_PAGE_SIZE <= page_size < MAX_PAGE_SIZE:
            raise ValueError(f"page_size={page_size} is not from {MIN_PAGE_SIZE} to {MAX_PAGE_SIZE - 1} (bytes)")
        self.fname, self.fields, self.page_size = str(fname), dict(fields), page_size
        self.num_workers = min(num_workers, system.cores()) if num_workers >= 1 else system.cores()
        self._stored = {name[:LONGEST_NAME]: _stored_as(name[:LONGEST_NAME], field) for name, field in fields.items()}
        if len(self._stored) < len(self.fields):
            what = f"of the fields {', '.join(fields)} two have the same first {LONGEST_NAME} letters"
            raise UserError(what, "give them other names: no more is stored")

    def from_indexed_dataset(
        self,
        dataset: Any,
        indices: Sequence[int] | None = None,
        chunksize: int = 100,
        shuffle_indices: bool = False,
    ) -> None:
        """Write `dataset[i]` (a tuple with a value for each field) for each of `indices`, by default for all.

        `chunksize`: samples that a process takes at a time, 100 or more. `shuffle_indices`: in an order by NumPy's
        generator.
        Raises UserError for a sample that cannot be stored; then the file is as it was.
        """
        chosen = np.arange(len(dataset)) if indices is None else np.asarray(indices)
        if shuffle_indices:
            chosen = np.random.permutation(chosen)
        self._write(_Indexed(dataset, chosen, self.fields), int(chunksize))

    def from_webdataset(self, shards: Sequence[str], pipeline: Callable) -> None:
        """Write the samples of `shards` (paths of tars, in their order) that `pipeline` makes: it takes a
        webdataset.WebDataset and returns one whose samples have a value for each field.

        Each sample goes through the pipeline alone: what mixes samples (`shuffle`, `batched`) has no effect.
        Raises UserError as from_indexed_dataset, for shards that are no tars on a disk, and without webdataset.
        """
        dataset = Shards(shards, pipeline, self.num_workers)
        self._write(_OfShards(dataset, np.arange(len(dataset)), self.fields), _FEWEST)

    def _write(self, source: _Indexed, chunksize: int) -> None:
        # Which are stored as JPEGs depends on the seed alone
        options = WriteOptions(self.num_workers, max(_FEWEST, chunksize))
        with progress.bar(len(source), "sample") as bar:
            write(source, self.fname, self._stored, options, {"name": "dataset"}, bar.update, with_card=False)


class _Indexed:
    """Samples of a data set as a source (beton/sources)."""

    processes, classes = True, None

    def __init__(self, dataset: Any, indices: np.ndarray, fields: Mapping[str, Field]):
        self._dataset, self._indices, self._fields = dataset, indices, dict(fields)
        self._as_stored = [_AS_STORED.get(type(field), lambda field, value: value) for field in fields.values()]

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        """For messages."""
        return f"dataset[{self._indices[index]}]"

    def read(self, index: int) -> tuple:
        """The values of a sample; what is behind the last field is left out, as FFCV does it."""
        values = self._dataset[self._indices[index]]
        values = tuple(values.values() if isinstance(values, Mapping) else values)
        if len(values) < len(self._fields):
            raise TypeError(f"it has {len(values)} values; the fields are {', '.join(self._fields)}")
        return tuple(
            convert(field, value)
            for convert, field, value in zip(self._as_stored, self._fields.values(), values, strict=False)
        )


class _OfShards(_Indexed):
    def name(self, index: int) -> str:
        """The tar and the key, for messages."""
        return self._dataset.name(index)


def _stored_as(name: str, field: Any) -> LibraryField:
    """The library's field that stores the same; a class of the user's own does it by its encode()."""
    kind = type(field)
    if kind is RGBImageField:
        return field.stored_as
    if kind is NDArrayField:
        return library.Array(field.dtype, field.shape)
    if kind is TorchTensorField:
        return library.Tensor(torch.from_numpy(np.empty(0, field.dtype)).dtype, field.shape)
    plain = {IntField: library.Int, FloatField: library.Float, BytesField: library.Bytes, JSONField: library.Json}
    if kind in plain:
        return plain[kind]()
    if not isinstance(field, Field):
        what = f"the field '{name}' is {field!r}, no Field"
        raise UserError(what, "make its class from beton.ffcv.fields.Field")
    return Written(name, field, CUSTOM)


def _whole(field: IntField, value: Any) -> Any:
    number = value.item() if hasattr(value, "item") else value
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _number(field: FloatField, value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _array(field: NDArrayField, value: Any) -> np.ndarray:
    array = value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array.reshape(field.shape) if array.size == np.prod(field.shape) else array


def _tensor(field: TorchTensorField, value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.numel() == np.prod(field.shape):
        return value.reshape(tuple(map(int, field.shape)))
    return value


# What FFCV takes too for a field, as the library's takes it
_AS_STORED: dict[type, Callable] = {
    IntField: _whole,
    FloatField: _number,
    BytesField: lambda field, value: as_bytes(value),
    NDArrayField: _array,
    TorchTensorField: _tensor,
}
