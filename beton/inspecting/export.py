"""The photos of a .beton as files again: class folders, or tars for WebDataset. Stored JPEGs stay as they are."""

import io
import os
import shutil
import tarfile
from contextlib import closing
from pathlib import Path

from beton import progress, system
from beton.errors import UserError
from beton.files import partial_path
from beton.format.fields.image import Image
from beton.format.file import BetonFile
from beton.sources._classed import counts
from beton.sources.webdataset import CLASSES
from beton.workers import in_order

FORMATS = ("folders", "webdataset")
_LARGEST_SHARD = 500_000_000  # bytes of photos in a tar


def export(file: BetonFile, folder: str, how: str = "folders") -> str:
    """Write every photo into `folder`, which must not exist yet, whole or not at all; returns what there is to say.

    JPEGs are written as they are stored, other photos as PNG, which loses nothing. `how`: 'folders', one for each
    class, or 'webdataset'. Raises UserError, and DamagedSample.
    """
    if how not in FORMATS:
        raise UserError(f"there is no format '{how}'", f"give one of {', '.join(FORMATS)}")
    target = Path(os.path.abspath(folder))
    if target.exists():
        raise UserError(f"{folder} exists already", "give the name of a new folder")
    image = next((name for name, column in file.columns.items() if isinstance(column.field, Image)), None)
    if image is None or file.labels is None:
        raise UserError(f"{file.path} has no image field and int field 'label'", "export a file of photos and labels")
    if len(file.wrong_labels()):
        raise UserError(file.label_error(file.wrong_labels()[0]), "write the dataset again")
    aside = partial_path(target)
    try:
        aside.mkdir(parents=True)
        said = _Photos(file, image).write(aside, how)
        aside.rename(target)
    except FileExistsError:
        raise UserError(f"{aside} is of another export, or of one that was killed", "remove it") from None
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise UserError(f"cannot write {folder} ({error.strerror or error})", "check the folder and its disk") from None
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    left = [name for name in file.columns if name not in (image, "label")]
    return said + (f"; without the fields {', '.join(left)}" if left else "")


class _Photos:
    """The photos of a file as files: `kinds` are 'jpg' or 'png' of each."""

    def __init__(self, file: BetonFile, image: str):
        self._file, self._image = file, image
        column = file.columns[image]
        self.kinds = ["jpg" if column.field.choice_of(record) == "jpg" else "png" for record in column.records]

    def write(self, folder: Path, how: str) -> str:
        """Write them all; returns what there is to say."""
        return self._webdataset(folder) if how == "webdataset" else self._folders(folder)

    def content(self, sample: int) -> bytes:
        """A photo as a file. Raises DamagedSample."""
        payload = self._file.verified(sample)[self._image]
        if self.kinds[sample] == "jpg":
            return payload
        from PIL import Image as Pillow

        out = io.BytesIO()
        Pillow.fromarray(self._file.value(sample, self._image, payload)).save(out, "PNG", compress_level=1)
        return out.getvalue()

    def _contents(self):
        """(sample, file) of all, made by threads."""
        return closing(in_order(self.content, 0, len(self._file), system.cores(), 16))

    def _folders(self, folder: Path) -> str:
        names, paths = self._class_names(), self._paths()
        for name in names:
            (folder / name).mkdir()
        with self._contents() as contents, progress.bar(len(self._file), "photos") as bar:
            for sample, content in contents:
                path = folder / names[self._file.labels[sample]] / paths[sample]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                bar.update(1)
        said = f"{len(self._file)} photos in {len(names)} class folders"
        kept = names == sorted(names) and (self._file.labels[1:] >= self._file.labels[:-1]).all()
        return said if kept else f"{said}, whose order is another one than the file's"

    def _class_names(self) -> list[str]:
        """A folder for each class."""
        most = int(self._file.labels.max()) + 1
        names = self._file.classes or [f"{label:0{len(str(most - 1))}d}" for label in range(most)]
        for name in names:
            if not counts(name) or not name or "/" in name or "\0" in name or len(name.encode()) > 255:
                raise UserError(f"the class {name!r} cannot be the name of a folder", "give --format webdataset")
        return names

    def _paths(self) -> list[str]:
        """The path of each photo in its class's folder: as it was called, where the card says that and a source that
        reads the folders has the same order; else its number."""
        digits = len(str(len(self._file)))
        numbers = [f"{sample:0{digits}d}.{kind}" for sample, kind in enumerate(self.kinds)]
        if self._file.names is None:
            return numbers
        names = [_named(name, kind) for name, kind in zip(self._file.names, self.kinds, strict=True)]
        of_class: dict[int, list[tuple[str, str]]] = {}
        for label, name in zip(self._file.labels.tolist(), names, strict=True):
            of_class.setdefault(label, []).append(os.path.split(name))
        good = all(found == sorted(set(found)) for found in of_class.values())
        return names if good and all(map(_is_safe, names)) else numbers

    def _webdataset(self, folder: Path) -> str:
        shards, size, tar = 0, _LARGEST_SHARD, None
        digits = len(str(len(self._file)))
        try:
            with self._contents() as contents, progress.bar(len(self._file), "photos") as bar:
                for sample, content in contents:
                    if size >= _LARGEST_SHARD:
                        if tar:
                            tar.close()
                        tar = tarfile.open(folder / f"{shards:06d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                        shards, size = shards + 1, 0
                    _add(tar, f"{sample:0{digits}d}.{self.kinds[sample]}", content)
                    _add(tar, f"{sample:0{digits}d}.cls", str(self._file.labels[sample]).encode())
                    size += len(content)
                    bar.update(1)
        finally:
            if tar:
                tar.close()
        if self._file.classes:
            if any("\n" in name for name in self._file.classes):
                raise UserError("names of classes have several lines", f"correct them in the card of {self._file.path}")
            (folder / CLASSES).write_text("".join(f"{name}\n" for name in self._file.classes))
        return f"{len(self._file)} photos in {shards} tars, 000000.tar to {shards - 1:06d}.tar"


def _named(name: str, kind: str) -> str:
    """The name of a photo's file below its class's folder, its ending that of the kind."""
    path = name.partition("/")[2] or name
    stem, ending = os.path.splitext(path)
    endings = {"jpg": (".jpg", ".jpeg"), "png": (".png",)}
    return path if ending.lower() in endings[kind] else f"{stem}.{kind}"


def _is_safe(path: str) -> bool:
    """Whether a path stays in its folder, and is not hidden."""
    return all(part and counts(part) for part in path.split("/")) and "\0" not in path


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # of time 0, so that the same file gives the same tars
    info.size, info.mode = len(content), 0o644
    tar.addfile(info, io.BytesIO(content))
