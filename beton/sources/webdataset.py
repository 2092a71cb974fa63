"""WebDataset: tars in which files that are called alike but for their ending are one sample.

A photo (.jpg, .png, ...) and its class: a number in .cls, or `label` in .json. The names of the classes may lie beside
the tars, in classes.txt, one a line; `python -m beton export --format webdataset` writes all of this.
"""

import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

from beton import progress
from beton.errors import UserError
from beton.sources import _files, _tars
from beton.sources._classed import ENDINGS

CLASSES = "classes.txt"
_PHOTOS = {ending[1:] for ending in ENDINGS}


class Shards:
    """The samples of some tars, in the order of these and within them.

    `classes` are the names that are given, None where there are none.
    """

    fields = {"image": "image", "label": "int"}

    def __init__(self, tars: list[str], classes: list[str] | None):
        self.classes, self._tars = classes, tars
        self._keys, self._labels, self._places = [], array("q"), array("q")
        for number, tar in enumerate(progress.shown(tars, "tars")):
            for key, files in samples(tar):
                photo = next((files[kind] for kind in files if kind in _PHOTOS), None)
                if photo is None:
                    raise UserError(f"sample {key} of {tar} has no photo", "give tars whose samples have one (.jpg)")
                self._keys.append(key)
                self._labels.append(_label(tar, key, files))
                self._places.extend((number, photo.offset, photo.size))
        if not self._keys:
            raise UserError(f"there are no samples in {', '.join(tars[:3])}", "give tars that have some")

    def __len__(self) -> int:
        return len(self._keys)

    def label(self, index: int) -> int:
        """The number of a photo's class."""
        return self._labels[index]

    def name(self, index: int) -> str:
        """The tar and the sample's key."""
        return f"{self._tars[self._places[3 * index]]}: {self._keys[index]}"

    def stored_name(self, index: int) -> str:
        """The sample's key."""
        return self._keys[index]

    def identity(self, index: int) -> str:
        """Label, tar and key."""
        return f"{self.label(index)} {self.name(index)}"

    def read(self, index: int) -> tuple[bytes, int]:
        """The photo's file, as it is, and its label; raises OSError if it cannot be read."""
        tar, offset, size = self._places[3 * index : 3 * index + 3]
        return _tars.read(self._tars[tar], offset, size), self.label(index)


def samples(tar: str) -> Iterator[tuple[str, dict[str, _tars.Member]]]:
    """Key and files by ending ('jpg', 'cls') of each sample: those that follow one another with the same key."""
    key, files = None, {}
    for member in _tars.members(tar):
        folder, _, name = member.name.rpartition("/")
        stem, dot, kind = name.partition(".")
        if not stem or not dot:
            continue
        own = f"{folder}/{stem}" if folder else stem
        if own != key:
            if files:
                yield key, files
            key, files = own, {}
        files[kind.lower()] = member
    if files:
        yield key, files


def _label(tar: str, key: str, files: dict[str, _tars.Member]) -> int:
    kind = "cls" if "cls" in files else "json"
    try:
        text = _tars.read(tar, files[kind].offset, files[kind].size)
        label = int(text) if kind == "cls" else json.loads(text)["label"]
        if isinstance(label, int) and not isinstance(label, bool):
            return label
    except OSError as error:
        raise UserError(f"cannot read {tar} ({error.strerror or error})", "check the file and its disk") from None
    except (KeyError, TypeError, ValueError):
        pass
    what = f"sample {key} of {tar} has no class: neither a number in .cls, nor `label` in .json"
    raise UserError(what, "give tars that have it")


def open_source(data_dir: str | None, split: str, seed: int = 0, count: int | None = None) -> Shards:
    """The samples of the tars of a split in the folder `data_dir`, or of those of a pattern: 'train-{000..146}.tar'."""
    tars = _files.find(data_dir, (".tar",), split, "tars (shards)")
    beside = Path(os.path.dirname(tars[0])) / CLASSES
    try:
        classes = beside.read_text().splitlines() if beside.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {beside} ({error})", "correct or remove it") from None
    return Shards(tars, classes)


SOURCE = open_source
