"""A folder with one folder for each class; photos may lie in further folders below."""

import os
import stat

from torchvision.datasets import ImageFolder

from pipelines.errors import UserError

_SPLITS = {"train", "val", "valid", "validation", "test"}


class PhotoFolder:
    """The photos below a folder, in torchvision's order: classes by name, then files by path."""

    def __init__(self, folder: str):
        try:
            found = ImageFolder(folder, allow_empty=True)
        except FileNotFoundError:
            raise UserError(
                f"{folder} has no class folders", "give a folder with one folder of photos for each class"
            ) from None
        except OSError as error:
            raise UserError(f"cannot read {folder} ({error.strerror})", "mend it, or give another folder") from None
        self.classes = found.classes
        self._samples = found.samples
        if set(self.classes) <= _SPLITS:
            raise UserError(
                f"{folder} holds {' and '.join(self.classes)}, not classes",
                f"give {folder}/{self.classes[0]}",
            )
        if not self._samples:
            raise UserError(f"{folder} has no photos in its class folders", "put photos into them")

    def __len__(self) -> int:
        return len(self._samples)

    def label(self, index: int) -> int:
        """Class of a photo, as an index into `classes`."""
        return self._samples[index][1]

    def name(self, index: int) -> str:
        """Path of a photo."""
        return self._samples[index][0]

    def read(self, index: int) -> bytes:
        """The photo's file, as it is; raises OSError if it cannot be read."""
        # Opening a pipe, or reading a device, would wait for ever
        descriptor = os.open(self._samples[index][0], os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("it is not an ordinary file")
            return file.read()


def open_source(data_dir: str | None, split: str, seed: int = 0, count: int | None = None) -> PhotoFolder:
    """Photos of the class folders in `data_dir`; `split` is only a name here, as in ffcv-imagenet."""
    if not data_dir:
        raise UserError("no data_dir is given", "set cfg.data_dir to the folder that holds the class folders")
    if not os.path.isdir(data_dir):
        raise UserError(f"there is no folder {data_dir}", "give the folder that holds the class folders")
    return PhotoFolder(data_dir)
