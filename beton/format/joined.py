"""Several .betons as one, behind the face of one."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import accumulate, chain
from mmap import ALLOCATIONGRANULARITY
from pathlib import Path
from typing import Any

import numpy as np

from beton.errors import DamagedSample, UserError
from beton.format.file import BetonFile
from beton.format.maps import JoinedMap
from beton.format.parts import absolute, in_order, is_remote, of_the_write, paths_of, text_of
from beton.format.tables import Column

# Entries of a card that are one for all files where they are the same in all, and those that are added up
_COMMON = (
    "card_version",
    "format_version",
    "classes",
    "class_to_idx",
    "fields",
    "parameters",
    "source",
    "seed",
    "versions",
)
_SUMS = ("samples_per_class", "samples_per_mode", "bytes_per_mode", "notes")


def open_beton(path: str | Path | Sequence[str | Path], cache: str | Path | None = None) -> BetonFile:
    """Open a .beton, or several as one: a path, a list of paths, a pattern, or a text of these with commas.

    URLs (s3://bucket/train-*.beton, https://...) are fetched into the folder `cache` first, unless they are there.
    Raises UserError for what is no complete .beton, and for files that are not one data set.
    """
    text = text_of(path)
    if is_remote(text):
        from beton.remote.arrival import fetch

        text = text_of(fetch(text, cache))
    paths = paths_of(text)
    return BetonFile(paths[0]) if paths == [text] else JoinedFile(text, paths)


class JoinedFile(BetonFile):
    """The samples of several files one after the other; `parts` are the files.

    Each begins at a multiple of the largest page size in one range of addresses, so that no page has samples of two.
    """

    def __init__(self, text: str, paths: list[str], opened: Callable[[str], BetonFile] = BetonFile):
        self.path, self.parts, self._absolute = text, [], absolute(text)
        try:
            for path in paths:
                self.parts.append(opened(path))
            self.parts = in_order(self.parts, text)
            self._check()
        except BaseException:
            self.close()
            raise
        self.page_size = max(part.page_size for part in self.parts)
        step = max(self.page_size, ALLOCATIONGRANULARITY)  # the system maps whole pages of its own
        self._bases = list(accumulate((-(-part.bytes // step) * step for part in self.parts[:-1]), initial=0))
        self._firsts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.num_samples, self.bytes = int(self._firsts[-1]), sum(part.bytes for part in self.parts)
        self.columns = {name: self._column(name) for name in self.parts[0].columns}
        self.card, checksums = _card(self.parts), [part.checksums for part in self.parts]
        self.checksums = None if any(known is None for known in checksums) else np.concatenate(checksums)
        self._row = namedtuple("Sample", self.columns, rename=True)

    def __reduce__(self):
        return open_beton, (self._absolute,)  # opened again in another process

    def _check(self) -> None:
        """Raise UserError unless all have the same fields and classes."""
        first = self.parts[0]
        for part in self.parts[1:]:
            fields = {name: column.field for name, column in part.columns.items()}
            if fields != {name: column.field for name, column in first.columns.items()}:
                what = f"{part.path} has the fields {part.fields}, and {first.path} {first.fields}"
                raise UserError(what, "give files of the same fields")
            if part.classes != first.classes:
                what = f"{part.path} and {first.path} have different classes"
                raise UserError(what, "give files of the same classes")

    def _column(self, name: str) -> Column:
        columns = [part.columns[name] for part in self.parts]
        field = columns[0].field
        records = np.concatenate([_moved(column, base) for column, base in zip(columns, self._bases, strict=True)])
        sizes = None if columns[0].sizes is None else np.concatenate([column.sizes for column in columns])
        return Column(name, field, field.type_id(records), records, sizes)

    def close(self) -> None:
        """Close all files."""
        for part in self.parts:
            part.close()

    def map(self) -> JoinedMap:
        """All files in memory, to be read only; it outlives close(). Raises UserError."""
        try:
            return JoinedMap([part._file for part in self.parts], self._bases)
        except OSError as error:
            what = f"cannot map {self.path} ({error.strerror or error})"
            raise UserError(what, "merge the files: python -m beton merge") from None

    def map_to_cache(self) -> JoinedMap:
        """The same; see BetonFile."""
        return self.map()

    def _read(self, size: int, address: int) -> bytes:
        number = int(np.searchsorted(self._bases, address, "right")) - 1
        return self.parts[number]._read(size, address - self._bases[number])

    def damaged(self, sample: int, name: str, why: str) -> DamagedSample:
        """The error for a sample, which says in which file it is."""
        number = int(np.searchsorted(self._firsts, sample, "right")) - 1
        where = f"sample {sample - int(self._firsts[number])} of {self.parts[number].path}"
        return DamagedSample(self.path, sample, name, f"{why}; it is {where}")

    @cached_property
    def names(self) -> list[str] | None:
        """What each sample's file was called, None where a card does not say."""
        names = [part.names for part in self.parts]
        return None if any(known is None for known in names) else list(chain(*names))


def _moved(column: Column, base: int) -> np.ndarray:
    """The records with addresses that are `base` higher."""
    records, pointer = column.records, column.field.pointer
    if pointer is None:
        return records
    records = records.copy()
    if pointer:
        records[pointer] += np.uint64(base)
    else:  # the record is nothing but the address
        records += np.uint64(base)
    return records


def _card(parts: list[BetonFile]) -> dict[str, Any] | None:
    """What the cards say of all files together; None where one has no card."""
    cards = [part.card for part in parts]
    if any(card is None for card in cards):
        return None
    cards = [{**card, "parameters": of_the_write(card)} for card in cards]
    first = cards[0]
    joined = {key: first[key] for key in _COMMON if key in first and all(card.get(key) == first[key] for card in cards)}
    for key in _SUMS:
        if all(isinstance(card.get(key), dict) for card in cards):
            names = dict.fromkeys(chain(*(card[key] for card in cards)))
            joined[key] = {name: sum(card[key].get(name, 0) for card in cards) for name in names}
    joined["passed_through"] = sum(card.get("passed_through") or 0 for card in cards)
    joined["skipped"] = [line for card in cards for line in card.get("skipped") or []]
    joined["checksums"] = all(card.get("checksums") for card in cards)
    return joined
