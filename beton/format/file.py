"""The one reader of .beton files: their tables and card, and samples one by one."""

from __future__ import annotations

import os
import zlib
from collections import namedtuple
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beton import system
from beton.errors import DamagedSample, UserError
from beton.format.card import card_path, checked_checksums, decoded_names, read_card
from beton.format.fields.base import Field
from beton.format.maps import FileMap, JoinedMap
from beton.format.tables import Tables, read_tables

if TYPE_CHECKING:
    from beton.remote.arrival import Arrival

_ADVICE = "give the path of a .beton, or write one"


class BetonFile:
    """An open .beton; `file[i]` is a named tuple of sample i's values, in the order of the file's fields.

    `path`; `columns` (a Column for each field, by name); `card` (see beton/format/card.py; None where there is none);
    `checksums` (uint32, CRC-32 of each sample's payloads; None without); `bytes` (size of the file); `num_samples`
    and `page_size`. Payloads are read, not mapped: where the disk fails, that is an error of one sample.

    Raises UserError when it is not a complete .beton, or its card is that of another file. Close it, or use it as a
    context manager. Any number of threads may read.
    """

    arrival: Arrival | None = None  # of a file that is still on its way

    def __init__(self, path: str | Path, card_at: Path | None = None, custom: Mapping[str, Field] | None = None):
        """`custom`: fields that the library does not know, by name."""
        self.path, self._absolute = str(path), os.path.abspath(path)
        self._file, tables = _open(self.path, custom)
        try:
            self.num_samples, self.page_size, self.columns = tables.num_samples, tables.page_size, tables.columns
            self.bytes = os.fstat(self._file.fileno()).st_size
            self.card, self.checksums = read_card(card_at or card_path(path)), None
            if self.card is not None:
                about = self.path, self.bytes, self.num_samples, tables.checksum
                self.checksums = checked_checksums(self.card, *about)
        except BaseException:
            self._file.close()
            raise
        self._row = namedtuple("Sample", self.columns, rename=True)

    def __reduce__(self):
        return type(self), (self._absolute,)  # opened again in another process

    def __enter__(self) -> BetonFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def map(self) -> FileMap:
        """The whole file in memory, to be read only; it outlives close()."""
        return FileMap(self._file)

    def map_to_cache(self) -> JoinedMap:
        """The same for a user that says which parts are in memory. Raises UserError where that cannot be done."""
        if not hasattr(os, "posix_fadvise"):
            raise UserError("this system keeps what it likes of a file in memory", "leave out `cache_gb`")
        return JoinedMap([self._file], [0])

    def _read(self, size: int, address: int) -> bytes:
        return system.read_at(self._file, size, address)

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, sample: int) -> Any:
        """The values of a sample, after comparing it with its checksum if there is one.

        Raises IndexError, and DamagedSample.
        """
        if not -self.num_samples <= sample < self.num_samples:
            raise IndexError(f"sample {sample} of {self.path} is out of range; it has {self.num_samples} samples")
        sample = sample % self.num_samples
        payloads = self.verified(sample)
        return self._row(*[self.value(sample, name, payloads.get(name)) for name in self.columns])

    @property
    def fields(self) -> dict[str, str]:
        """The type of each field by name, e.g. {"image": "rgb_image", "label": "int"}."""
        return {name: column.field.type_names[column.type_id] for name, column in self.columns.items()}

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The field 'label' of all samples (int64), None where there is no such int field."""
        return self.columns["label"].records if self.fields.get("label") == "int" else None

    @cached_property
    def classes(self) -> list[str] | None:
        """Names of the classes by label; None where the file has no card, or the card no names.

        Raises UserError when the card has something else in their place.
        """
        names = (self.card or {}).get("classes")
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UserError(f"the card of {self.path} has no list of classes", "delete it or write the dataset again")
        return names or None

    def wrong_labels(self) -> np.ndarray:
        """Samples whose label is that of no class (int64); of none where the file has no labels."""
        if self.labels is None:
            return np.empty(0, np.int64)
        return np.flatnonzero((self.labels < 0) | (self.labels >= self._most_classes))

    def label_error(self, sample: int) -> str:
        """What is wrong with the label of one of these."""
        what = f"sample {sample} of {self.path} has the label {self.labels[sample]}"
        return f"{what}, not one of 0 to {self._most_classes - 1}"

    @property
    def _most_classes(self) -> int:
        # Without names: a damaged label could stand for 2**63 classes
        return len(self.classes) if self.classes else 1 << 20

    @cached_property
    def names(self) -> list[str] | None:
        """What each sample's file was called, None where the card does not say. Raises UserError if it is damaged."""
        return decoded_names(self.card or {}, self.num_samples)

    def subset(self, classes: Sequence[str | int]) -> np.ndarray:
        """The samples (int64) of these classes, by name or number; nothing is decoded. Raises UserError."""
        if self.labels is None:
            raise UserError(f"{self.path} has no int field 'label'", "choose the samples by what it has")
        names, numbers = self.classes or [], []
        for given in classes:
            if isinstance(given, str) and given not in names:
                raise UserError(
                    f"{self.path} has no class '{given}'", f"name some of {', '.join(names) or 'its labels'}"
                )
            numbers.append(names.index(given) if isinstance(given, str) else int(given))
        return np.flatnonzero(np.isin(self.labels, numbers))

    def split(self, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Two sets of samples (int64, each in the file's order): round(share * N) drawn by the seed, and the rest.

        Raises UserError for a share that leaves one of them empty.
        """
        from beton.rng import permutation

        count = round(share * len(self))
        if not 0 < count < len(self):
            raise UserError(f"`share`={share!r} of {len(self)} samples leaves a part empty", "give one between 0 and 1")
        drawn = permutation(len(self), seed)
        return np.sort(drawn[:count]), np.sort(drawn[count:])

    def payload(self, sample: int, name: str) -> bytes:
        """The bytes of a field as they are stored; raises DamagedSample."""
        column = self.columns[name]
        size = int(column.sizes[sample])
        if not size:
            return b""
        try:
            payload = self._read(size, int(column.addresses[sample]))
        except OSError as error:
            raise self.damaged(sample, name, error.strerror or str(error)) from None
        if len(payload) < size:
            raise self.damaged(sample, name, "the file became shorter")
        return payload

    def verified(self, sample: int) -> dict[str, bytes]:
        """All payloads of a sample, after comparing them with its checksum if there is one; raises DamagedSample."""
        names = [name for name, column in self.columns.items() if column.sizes is not None]
        payloads, checksum = {name: self.payload(sample, name) for name in names}, 0
        for payload in payloads.values():
            checksum = zlib.crc32(payload, checksum)
        if self.checksums is not None and names and checksum != self.checksums[sample]:
            raise self.damaged(sample, names[0], "its checksum differs")
        return payloads

    def value(self, sample: int, name: str, payload: bytes | None) -> Any:
        """The value of a field whose payload has been read; raises DamagedSample."""
        column = self.columns[name]
        try:
            return column.field.value(column.records[sample], payload)
        except ValueError as error:
            raise self.damaged(sample, name, str(error)) from None

    def damaged(self, sample: int, name: str, why: str) -> DamagedSample:
        """The error for a sample of this file."""
        return DamagedSample(self.path, sample, name, why)

    def describe(self, sample: int) -> str:
        """E.g. "sample 3 (cat, jpg, 64 x 48, cat/003.jpg)"."""
        about = [column.field.describe(column.records[sample]) for column in self.columns.values()]
        about += [self.names[sample]] if self.names else []
        return f"sample {sample} ({', '.join(filter(None, [self.class_of(sample), *about]))})"

    def class_of(self, sample: int) -> str:
        """The name of a sample's class, its number where there is no name, nothing where there is no label."""
        if self.labels is None:
            return ""
        label, names = int(self.labels[sample]), self.classes
        return names[label] if names and 0 <= label < len(names) else str(label)


def _open(path: str, custom: Mapping[str, Field] | None) -> tuple[Any, Tables]:
    """The open file and its tables; raises UserError."""
    if not os.path.exists(path):
        raise UserError(f"there is no file {path}", _ADVICE)
    if not os.path.isfile(path):
        what = "is a folder, not a .beton" if os.path.isdir(path) else "is not a .beton file"
        raise UserError(f"{path} {what}", _ADVICE)
    try:
        file = open(path, "rb")  # noqa: SIM115  closed by BetonFile
        try:
            return file, read_tables(file, path, custom)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})", "check the file and its disk") from None
