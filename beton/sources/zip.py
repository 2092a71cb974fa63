"""Class folders in a zip, which stays as it is: `photos.zip`, or a folder in it, `photos.zip/data/train`."""

import os
import zipfile
import zlib

from beton.errors import UserError
from beton.sources._classed import SPLITS, ClassedPhotos, check_classes, counts, ending, is_photo

_AGAIN = "fetch it again"


class ZipPhotos(ClassedPhotos):
    """The photos below the folder `inside` of a zip, in the order in which PhotoFolder has them."""

    def __init__(self, path: str, inside: str, split: str, keep_empty: bool = False):
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"cannot read {path} ({error})", _AGAIN) from None
        files = {info.filename: info for info in self._zip.infolist()}
        if any(info.flag_bits & 1 for info in files.values()):
            raise UserError(f"{path} is encrypted", "unpack it, and use `dataset`='imagefolder'")
        inside = _folder_of_split(list(files), f"{inside}/" if inside else "", split)
        super().__init__(f"{path}/{inside}".rstrip("/"))
        below = [(name.removeprefix(inside), info) for name, info in files.items() if name.startswith(inside)]
        if not below:
            raise UserError(f"there is no folder {inside.rstrip('/')} in {path}", "give one of its folders")
        photos = self._sorted(below)
        check_classes(self.where, photos, [name for name, _ in below if "/" not in name], keep_empty)
        self._infos = [info for found in photos.values() for _, info in found]
        self._hold({name: [path for path, _ in found] for name, found in photos.items()})

    def _sorted(self, files: list[tuple[str, zipfile.ZipInfo]]) -> dict[str, list[tuple[str, zipfile.ZipInfo]]]:
        """The photos by class, both sorted."""
        photos: dict[str, list] = {}
        for name, info in files:
            folder, slash, file = name.rpartition("/")
            if not slash or not all(map(counts, [*folder.split("/"), file or "-"])) or folder.startswith("__MACOSX"):
                continue
            of_class = photos.setdefault(folder.split("/")[0], [])
            if is_photo(file):
                of_class.append((folder, file, info))
            elif file:
                self.passed_over[ending(file)] += 1
        by_name = {name: sorted(photos[name], key=lambda found: found[:2]) for name in sorted(photos)}
        return {name: [(f"{folder}/{file}", i) for folder, file, i in found] for name, found in by_name.items()}

    def read(self, index: int) -> tuple[bytes, int]:
        """The photo's file, as it is, and its label; raises OSError if it cannot be read."""
        try:
            return self._zip.read(self._infos[index]), self.label(index)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise OSError(str(error)) from None


def _folder_of_split(names: list[str], inside: str, split: str) -> str:
    """`inside`, or the folder of the split in it, if it has nothing but folders of splits."""
    folders = {name.removeprefix(inside).split("/")[0] for name in names if name.startswith(inside) and "/" in name}
    if split in folders and folders <= {*SPLITS, "__MACOSX"}:
        return f"{inside}{split}/"
    return inside


def open_source(
    data_dir: str | None, split: str, seed: int = 0, count: int | None = None, empty_classes: str = "error"
) -> ZipPhotos:
    """Photos of the class folders in the zip `data_dir`, in its folder `split` where it has one for each split.

    `data_dir` may go on with a folder in the zip. `empty_classes`: 'error', or 'keep' for folders without photos.
    """
    if not data_dir:
        raise UserError("no `data_dir` is given", "give the zip")
    path, inside = data_dir.rstrip("/"), ""
    while not os.path.exists(path) and os.path.dirname(path) not in ("", "/"):
        path, name = os.path.split(path)
        inside = f"{name}/{inside}".rstrip("/")
    if not os.path.isfile(path):
        raise UserError(f"there is no zip {data_dir}", "give the path of one")
    return ZipPhotos(path, inside, split, empty_classes == "keep")


SOURCE = open_source
