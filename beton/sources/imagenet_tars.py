"""ImageNet as it is handed out, not unpacked: the archives of ILSVRC 2012, or ImageNet-21k's tars of classes."""

import os
import tarfile
from array import array
from collections.abc import Iterable

from beton import progress
from beton.errors import UserError
from beton.sources import _tars
from beton.sources._classed import ClassedPhotos, check_classes, counts, ending, is_photo

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"


class TarPhotos(ClassedPhotos):
    """Photos that lie in tars: classes by name, then photos by name, as if they were unpacked to class folders.

    `by_class`: for each class the photos, a name and the tar with the member each.
    """

    def __init__(
        self, where: str, by_class: dict[str, Iterable[tuple[str, str, _tars.Member]]], keep_empty: bool = False
    ):
        super().__init__(where)
        photos, self._tars, self._places = {}, [], array("q")
        for name in progress.shown(sorted(by_class), "classes"):
            photos[name] = self._add(name, by_class[name])
        check_classes(where, photos, (), keep_empty)
        self._hold(photos)

    def _add(self, name: str, found: Iterable[tuple[str, str, _tars.Member]]) -> list[str]:
        """Note where the photos of a class lie; returns their paths."""
        paths = []
        for photo, tar, member in sorted(found):
            if not counts(photo):
                continue
            if not is_photo(photo):
                self.passed_over[ending(photo)] += 1
                continue
            if not self._tars or self._tars[-1] != tar:
                self._tars.append(tar)
            self._places.extend((len(self._tars) - 1, member.offset, member.size))
            paths.append(f"{name}/{photo}")
        return paths

    def read(self, index: int) -> tuple[bytes, int]:
        """The photo's file, as it is, and its label; raises OSError if it cannot be read."""
        tar, offset, size = self._places[3 * index : 3 * index + 3]
        return _tars.read(self._tars[tar], offset, size), self.label(index)


def _class_tars(folder: str) -> TarPhotos:
    """A folder with one tar for each class, as ImageNet-21k is handed out, and as the outer tar is unpacked to."""
    names = sorted(name for name in os.listdir(folder) if counts(name) and name.endswith(".tar"))
    if not names:
        what = f"{folder} has neither {TRAIN} and {VAL} nor a tar for each class"
        raise UserError(what, "give the folder with the archives as they were fetched")
    paths = [os.path.join(folder, name) for name in names]
    return TarPhotos(folder, {name[:-4]: _photos(path) for name, path in zip(names, paths, strict=True)})


def _tar_of_tars(path: str) -> TarPhotos:
    """A tar that holds one tar for each class."""
    inner = [member for member in _tars.members(path) if member.name.endswith(".tar")]
    if not inner:
        raise UserError(f"{path} holds no tars, of which there should be one for each class", "give another archive")
    return TarPhotos(path, {os.path.basename(member.name)[:-4]: _photos(path, member) for member in inner})


def _photos(path: str, inner: _tars.Member | None = None) -> Iterable[tuple[str, str, _tars.Member]]:
    """The members of a class's tar, by their file names: ImageNet-21k's lie in a folder of their class or not."""
    for member in _tars.members(path, inner):
        yield os.path.basename(member.name), path, member


def _validation(folder: str) -> TarPhotos:
    """The flat tar of validation photos, with the labels of the devkit."""
    classes, numbers = _devkit(os.path.join(folder, DEVKIT))
    path = os.path.join(folder, VAL)
    photos = sorted(photo for photo in _photos(path) if is_photo(photo[0]))
    if len(photos) != len(numbers):
        raise UserError(f"{path} has {len(photos)} photos, and {DEVKIT} labels {len(numbers)}", "fetch them again")
    by_class = {name: [] for name in sorted(classes.values())}
    for photo, number in zip(photos, numbers, strict=True):
        by_class[classes[number]].append(photo)
    return TarPhotos(path, by_class, keep_empty=True)  # the devkit says that they are classes


def _devkit(path: str) -> tuple[dict[int, str], list[int]]:
    """The classes by ILSVRC2012_ID, and this number of each validation photo in the order of their names."""
    try:
        from scipy.io import loadmat
    except ImportError:
        what = f"scipy, which reads the class names in {DEVKIT}, is not installed"
        raise UserError(what, "pip install scipy") from None
    try:
        with tarfile.open(path) as devkit:
            files = {os.path.basename(name): name for name in devkit.getnames()}
            truth = devkit.extractfile(files["ILSVRC2012_validation_ground_truth.txt"]).read()
            synsets = loadmat(devkit.extractfile(files["meta.mat"]), squeeze_me=True)["synsets"]
            # Those with children are no classes, but the tree above them
            classes = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["num_children"]) == 0}
        numbers = list(map(int, truth.split()))
    except FileNotFoundError:
        what = f"there is no {path}, which has the labels of the validation photos"
        raise UserError(what, "fetch it too, it has 2.5 MB") from None
    except (OSError, EOFError, tarfile.TarError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error})", "fetch it again") from None
    if not set(numbers) <= set(classes):
        raise UserError(f"{path} names no class for some of the validation photos", "fetch it again")
    return classes, numbers


def open_source(data_dir: str | None, split: str, seed: int = 0, count: int | None = None) -> TarPhotos:
    """The photos of `split` ('train' or 'val') of the archives in the folder `data_dir`, by the names under which
    ILSVRC 2012 is handed out.

    A folder with none of those is one with a tar for each class, as of ImageNet-21k; a file, a tar of such tars.
    """
    if not data_dir:
        raise UserError("no `data_dir` is given", "give the folder that holds the archives")
    if os.path.isfile(data_dir):
        return _tar_of_tars(data_dir)
    if not os.path.isdir(data_dir):
        raise UserError(f"there is no folder {data_dir}", "give the folder that holds the archives")
    there = {TRAIN, VAL} & set(os.listdir(data_dir))
    wanted = TRAIN if split == "train" else VAL
    if there and wanted not in there:
        raise UserError(f"there is no {wanted} in {data_dir}", "fetch it too")
    if not there:
        return _class_tars(data_dir)
    return _tar_of_tars(os.path.join(data_dir, TRAIN)) if split == "train" else _validation(data_dir)


SOURCE = open_source
