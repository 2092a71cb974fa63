"""A folder with one folder for each class; photos may lie in further folders below."""

import os
from collections import Counter

from beton import system
from beton.errors import UserError

# As torchvision's ImageFolder has them
_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_SPLITS = ("train", "val", "valid", "validation", "test")


class PhotoFolder:
    """The photos below a folder, in torchvision's order: classes by name, then files by path.

    What is hidden (its name begins with a dot) is ignored. `keep_empty`: folders without photos are classes too;
    else they are an error, for they would shift the labels. `passed_over`: files that are no photos, by their ending.
    """

    fields = {"image": "image", "label": "int"}

    def __init__(self, folder: str, keep_empty: bool = False):
        self._folder, self.passed_over = folder, Counter()
        try:
            self.classes = sorted(entry.name for entry in os.scandir(folder) if _counts(entry.name) and entry.is_dir())
            photos = {name: self._photos(os.path.join(folder, name)) for name in self.classes}
        except OSError as error:
            raise UserError(f"cannot read {folder} ({error.strerror})", "check it, or give another folder") from None
        self._check(photos, keep_empty)
        self._samples = [(path, label) for label, paths in enumerate(photos.values()) for path in paths]

    def _check(self, photos: dict[str, list[str]], keep_empty: bool) -> None:
        folder, splits = self._folder, [name for name in _SPLITS if name in photos]
        if not photos:
            flat = any(name.lower().endswith(_ENDINGS) for name in os.listdir(folder))
            what = "photos but no class folders" if flat else "no class folders"
            raise UserError(f"{folder} has {what}", "give a folder with one folder of photos for each class")
        if len(splits) == len(photos):
            raise UserError(f"{folder} holds {' and '.join(splits)}, not classes", f"give {folder}/{splits[0]}")
        empty = [name for name, paths in photos.items() if not paths]
        if len(empty) == len(photos):
            raise UserError(f"{folder} has no photos in its class folders", "put photos into them")
        if empty and not keep_empty:
            what = f"{folder} has {len(empty)} class folders without photos ({_some(empty)})"
            raise UserError(what, "remove them, or set `empty_classes`='keep'")

    def _photos(self, folder: str) -> list[str]:
        """Paths of the photos in a folder and those below, in torchvision's order."""
        found, walked = [], []
        for parent, folders, names in os.walk(folder, followlinks=True):
            folders[:] = filter(_counts, folders)
            walked.append((parent, sorted(filter(_counts, names))))
        for parent, names in sorted(walked):
            photos = [name for name in names if name.lower().endswith(_ENDINGS)]
            self.passed_over.update(os.path.splitext(name)[1].lower() for name in set(names) - set(photos))
            found += [os.path.join(parent, name) for name in photos]
        return found

    def __len__(self) -> int:
        return len(self._samples)

    def label(self, index: int) -> int:
        """Class of a photo, as an index into `classes`."""
        return self._samples[index][1]

    def name(self, index: int) -> str:
        """Path of a photo."""
        return self._samples[index][0]

    def stored_name(self, index: int) -> str:
        """Path of a photo below the folder, with slashes."""
        return self.name(index)[len(self._folder) :].replace(os.sep, "/").lstrip("/")

    def identity(self, index: int) -> str:
        """Label and path."""
        path, label = self._samples[index]
        return f"{label} {path}"

    def read(self, index: int) -> tuple[bytes, int]:
        """The photo's file, as it is, and its label; raises OSError if it cannot be read."""
        path, label = self._samples[index]
        return system.read_file(path), label


def _counts(name: str) -> bool:
    """Hidden ones (.ipynb_checkpoints, ._x.jpg) do not."""
    return not name.startswith(".")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def open_source(
    data_dir: str | None, split: str, seed: int = 0, count: int | None = None, empty_classes: str = "error"
) -> PhotoFolder:
    """Photos of the class folders in `data_dir`; `split` is only a name here, as in ffcv-imagenet.

    `empty_classes`: 'error', or 'keep' for folders without photos that are classes all the same.
    """
    if not data_dir:
        raise UserError("no `data_dir` is given", "give the folder that holds the class folders")
    if os.path.isfile(data_dir):
        raise UserError(f"{data_dir} is a file, not a folder of photos", "give the folder that holds the class folders")
    if not os.path.isdir(data_dir):
        raise UserError(f"there is no folder {data_dir}", "give the folder that holds the class folders")
    return PhotoFolder(data_dir, empty_classes == "keep")


SOURCE = open_source
