"""A folder with one folder for each class; photos may lie in further folders below."""

import os

from beton import system
from beton.errors import UserError
from beton.sources._classed import ClassedPhotos, check_classes, counts, ending, is_photo


class PhotoFolder(ClassedPhotos):
    """The photos below a folder, in torchvision's order: classes by name, then files by path.

    What is hidden (its name begins with a dot) is ignored. `keep_empty`: folders without photos are classes too;
    else they are an error, for they would shift the labels.
    """

    def __init__(self, folder: str, keep_empty: bool = False):
        super().__init__(folder)
        try:
            classes = sorted(entry.name for entry in os.scandir(folder) if counts(entry.name) and entry.is_dir())
            photos = {name: self._photos(name) for name in classes}
        except OSError as error:
            raise UserError(f"cannot read {folder} ({error.strerror})", "check it, or give another folder") from None
        check_classes(folder, photos, os.listdir(folder), keep_empty)
        self._hold(photos)

    def _photos(self, name: str) -> list[str]:
        """Paths of a class's photos, in torchvision's order."""
        found, walked = [], []
        for parent, folders, names in os.walk(os.path.join(self.where, name), followlinks=True):
            folders[:] = filter(counts, folders)
            walked.append((parent, sorted(filter(counts, names))))
        for parent, names in sorted(walked):
            photos = list(filter(is_photo, names))
            self.passed_over.update(map(ending, set(names) - set(photos)))
            below = parent[len(self.where) :].replace(os.sep, "/").lstrip("/")
            found += [f"{below}/{name}" for name in photos]
        return found

    def name(self, index: int) -> str:
        """Path of a photo."""
        return os.path.join(self.where, self.stored_name(index))

    def read(self, index: int) -> tuple[bytes, int]:
        """The photo's file, as it is, and its label; raises OSError if it cannot be read."""
        return system.read_file(self.name(index)), self.label(index)


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
