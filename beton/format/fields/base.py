"""What a field is: one column of a .beton, from the value that is written to the batch that comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from beton.errors import UserError

if TYPE_CHECKING:
    import torch

    from beton.format.file import Column
    from beton.format.mapped import MappedFile


@dataclass
class Encoded:
    """One value as it will be stored, or why it cannot be (`error`); `note`: what is to be counted of it.

    `values` are those of its record, without the payload's address; `payload` (uint8) is None for fields that have
    none. `passed`: the payload is what the source gave, unchanged.
    """

    values: tuple = ()
    payload: np.ndarray | None = None
    passed: bool = False
    error: str | None = None
    note: str | None = None


class Field:
    """A column. A file in this folder defines a subclass, a frozen dataclass whose members are options of
    writing with defaults, and names it FIELD.

    `type_names` maps FFCV's numbers of the type to names (several where FFCV shall refuse some of the files), `record`
    is the dtype of a sample's metadata, `pointer` the name in it of the payload's address: None without payloads, ""
    where the record is nothing but the address. `marker` is how the arguments in the file's descriptor begin where
    several fields have one number: FFCV passes over it.
    """

    type_names: ClassVar[dict[int, str]]
    record: np.dtype
    pointer: ClassVar[str | None] = None
    marker: ClassVar[bytes] = b""
    # A function (values, address) -> (address, bytes) of each of several payloads that are stored as one
    pieces: ClassVar[Callable | None] = None
    follows: ClassVar[bool] = False  # whether its values are cut out as the image of their sample is, unless told

    # Writing

    def choices(self, count: int, seed: int) -> Sequence[Any]:
        """What is decided for each of `count` values before they are read; encode() gets it."""
        return [None] * count

    def corrections(self, choices: list) -> list[tuple[int, Any]]:
        """Some values could not be read, and these are the choices of the rest: (position, other choice) of those
        that must be stored again to keep what choices() promised."""
        return []

    def encode(self, value: Any, choice: Any = None) -> Encoded:
        """A value from a source as it will be stored. Runs in threads."""
        raise NotImplementedError

    def keeps(self, before: Any, record: Any, payload: bytes | None, choice: Any) -> bool:
        """Whether a value that a field of this class has stored like this needs no change, to be stored by this one.

        `before`: that field with its options, None where they are not known.
        """
        return False

    def given(self, record: Any, payload: bytes | None) -> Any:
        """What encode() is given to store a stored value anew. Raises ValueError where the payload is damaged."""
        return self.value(record, payload)

    def largest_payload(self) -> int:
        """Bytes that a payload may have; 0 where that is not known."""
        return 0

    def type_id(self, records: np.ndarray) -> int:
        """The number of the type for a file with these records."""
        return next(iter(self.type_names))

    def arguments(self) -> bytes:
        """What the file's descriptor of the column says besides the type: at most 1024 bytes, `marker` first."""
        return self.marker

    def row(self, values: Sequence[Any], address: int) -> Any:
        """A record as NumPy takes it, of Encoded's values and the address of the payload."""
        if self.pointer is None:
            return values[0] if len(values) == 1 else tuple(values)
        if not self.pointer:
            return address
        row = list(values)
        row.insert(self.record.names.index(self.pointer), address)
        return tuple(row)

    # Reading

    @classmethod
    def of_arguments(cls, type_id: int, arguments: bytes) -> Field:
        """The field of a file with such a descriptor (1024 bytes). Raises ValueError where it cannot be one's."""
        return cls()

    def addresses(self, records: np.ndarray) -> np.ndarray:
        """Where in the file each payload begins (uint64); of fields that have payloads."""
        return records[self.pointer] if self.pointer else records

    def stated_sizes(self, records: np.ndarray) -> np.ndarray | None:
        """Bytes of each payload (uint64) as the records have them; None where only the allocation table does."""
        return None

    def check(self, type_id: int, records: np.ndarray, sizes: np.ndarray | None) -> str | None:
        """Why the records and payload sizes (bytes) cannot be those of a complete file; None where they can."""
        return None

    def sides(self, records: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Heights and widths (int64) in pixels of what stages can crop; None where that is not so."""
        return None

    def value(self, record: Any, payload: bytes | None) -> Any:
        """The value of a sample. Raises ValueError with the reason where the payload is damaged."""
        raise NotImplementedError

    def describe(self, record: Any) -> str:
        """What a record says in a few words, for messages; may be empty."""
        return ""

    def choice_of(self, record: Any) -> Any:
        """The choice with which encode() comes to such a record."""
        return None

    def summary(self, records: np.ndarray, sizes: np.ndarray | None) -> dict[str, str]:
        """Lines about a whole column for `python -m beton info`, by their headings; "" is the column's name."""
        return {}

    def facts(self, records: np.ndarray, sizes: np.ndarray | None, passed: np.ndarray | None = None) -> dict[str, Any]:
        """What a card says of a whole column; `passed` (bool) are Encoded's."""
        return {}

    def decoder(self, column: Column, mapped: MappedFile, stages: Any, dtype: Any, gpu: bool) -> Decoder:
        """What makes batches of the column; raises UserError where `stages` are not for such a field.

        `stages`: the pipeline as text, if one is given, or a beton.stages.like.Like. `dtype`: of normalised images,
        a torch dtype. `gpu`: batches go to one.
        """
        raise UserError(
            f"the field '{column.name}' of {mapped.path} ({self.type_names[column.type_id]}) cannot be loaded",
            "leave it out of `columns`",
        )

    @property
    def loads(self) -> bool:
        """Whether the field has a decoder."""
        return type(self).decoder is not Field.decoder


class Decoder:
    """Makes the rows of a column's batches, in threads.

    `shape` and `dtype` are those of one row in the buffer: a dtype that torch has, or object for rows that are any
    values of Python; a decoder that fills several buffers says so in `buffers`. `on_device`, where there is something
    left to do on the device, is a function of the tensor; and, as `drawn`, of the rows (still on the host) of
    `companion`, a Decoder of what that needs to know, or None. A decoder that makes several columns names them in
    `columns`: then to_batch() gives a tuple of them, `on_device` is one too, and it has no companion.
    """

    shape: tuple[int, ...] = ()
    dtype: np.dtype
    on_device: Any = None
    companion: Decoder | None = None
    timed: bool = False  # whether spent() is asked; set before open_worker()
    columns: tuple[str, ...] | None = None

    @cached_property
    def buffers(self) -> list[tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of a row of each buffer."""
        return [(self.shape, self.dtype)]

    def open_worker(self, rows: int) -> Any:
        """What a thread needs for itself to fill at most `rows` at a time."""
        return None

    def close_worker(self, worker: Any) -> None:
        """Free that."""

    def draw(self, samples: np.ndarray, keys: np.ndarray) -> np.ndarray | None:
        """What fill() gets as `drawn`, one row for each of these samples (all of a batch: drawn at once it costs less);
        None for nothing."""
        return None

    def fill(self, worker: Any, samples: np.ndarray, keys: np.ndarray, *targets: np.ndarray) -> None:
        """Write `samples` (int64, n), whose random keys (uint64, n) are given, into a part of each buffer (n x shape).

        Raises DamagedSample.
        """
        raise NotImplementedError

    def spent(self, worker: Any) -> dict[str, float]:
        """Seconds that a worker has spent, by parts of beton.loading.times; without what is not told apart."""
        return {}

    def to_batch(self, *rows: torch.Tensor | list) -> Any:
        """Rows of each buffer as the batch shows them: a tensor (a view of it), or the list of rows that are objects.

        What it returns is a tensor, a list or a tuple of such, or what stays on the host whatever the device.
        """
        return rows[0]

    @property
    def description(self) -> str:
        """How it runs, for the log; may be empty."""
        return ""
