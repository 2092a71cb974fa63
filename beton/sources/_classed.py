"""What sources of photos in class folders share, wherever those lie: on a disk, in a tar or in a zip."""

import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterable

from beton.errors import UserError

# As torchvision's ImageFolder has them
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
SPLITS = ("train", "val", "valid", "validation", "test")


class ClassedPhotos:
    """Photos with a name and a label each; a source but for read().

    A subclass calls _hold(). `where`: what they lie in. `passed_over`: files that are no photos, by their ending.
    """

    fields = {"image": "image", "label": "int"}

    def __init__(self, where: str):
        self.where, self.passed_over = where, Counter()

    def _hold(self, photos: dict[str, list[str]]) -> None:
        """Have these: by class, the paths of its photos below `where` with slashes, in their order."""
        self.classes, self._names, self._labels = list(photos), [], array("i")
        for label, names in enumerate(photos.values()):
            self._names += names
            self._labels.extend([label] * len(names))

    def __len__(self) -> int:
        return len(self._names)

    def label(self, index: int) -> int:
        """Class of a photo, as an index into `classes`."""
        return self._labels[index]

    def name(self, index: int) -> str:
        """Where a photo lies, for messages."""
        return f"{self.where}: {self._names[index]}"

    def stored_name(self, index: int) -> str:
        """Path of a photo, its class's folder first."""
        return self._names[index]

    def identity(self, index: int) -> str:
        """Label and path."""
        return f"{self.label(index)} {self.name(index)}"


def counts(name: str) -> bool:
    """Whether a file or folder does: hidden ones (.ipynb_checkpoints, ._x.jpg) do not."""
    return not name.startswith(".")


def is_photo(name: str) -> bool:
    """Whether a file is one, by its ending."""
    return name.lower().endswith(ENDINGS)


def ending(name: str) -> str:
    """What a file that is passed over is counted by."""
    return os.path.splitext(name)[1].lower()


def check_classes(where: str, photos: dict[str, Collection], beside: Iterable[str], keep_empty: bool) -> None:
    """Raise UserError unless `photos`, those of each class, are a data set.

    `beside`: names of the files that lie beside the class folders. Classes without photos would shift the labels where
    they are not kept.
    """
    splits = [name for name in SPLITS if name in photos]
    if not photos:
        what = "photos but no class folders" if any(map(is_photo, beside)) else "no class folders"
        raise UserError(f"{where} has {what}", "give a folder with one folder of photos for each class")
    if len(splits) == len(photos):
        raise UserError(f"{where} holds {' and '.join(splits)}, not classes", f"give {where}/{splits[0]}")
    empty = [name for name, found in photos.items() if not len(found)]
    if len(empty) == len(photos):
        raise UserError(f"{where} has no photos in its class folders", "put photos into them")
    if empty and not keep_empty:
        some = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        what = f"{where} has {len(empty)} class folders without photos ({some})"
        raise UserError(what, "remove them, or set `empty_classes`='keep'")
