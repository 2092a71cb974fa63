"""The data sets of other loaders, made on demand of the same photos in a cache folder, published by renaming."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import pipelines
from beton.errors import UserError
from beton.format.file import BetonFile
from beton.loading.columns import class_names
from beton.sources.imagefolder import open_source
from runtime.outputs import make_folder

_QUALITY = 90  # of photos that the beton does not hold as JPEGs


def make(loader: str, photos: Path, cache: Path) -> Path:
    """The data set of a loader, of the photos in a folder; made unless the cache has it."""
    source = open_source(str(photos), "train")
    name = f"{loader}-{_fingerprint(source)}"
    return _published(cache / name, lambda folder: pipelines.get(loader).make(source, folder))


def resized(beton: Path, cache: Path) -> Path:
    """A photo folder of what a .beton holds: its JPEGs as they are, other images encoded as JPEGs of quality 90."""
    state = os.stat(beton)
    name = f"photos-{_digest([beton.name, state.st_size, state.st_mtime_ns])}"
    return _published(cache / name, lambda folder: _export(beton, folder))


def _export(beton: Path, folder: Path) -> None:
    with BetonFile(str(beton)) as file:
        if (file.fields.get("image"), file.fields.get("label")) != ("rgb_image", "int"):
            raise UserError(f"{beton} holds no photos with labels", "leave `encodings`='original'")
        names = class_names(file)
        if (np.diff(file.labels) < 0).any():
            what = f"{beton} is not in the order of its classes, as a photo folder is"
            raise UserError(what, "write it of the photo folder, or leave `encodings`='original'")
        for index, label in enumerate(file.labels.tolist()):
            (folder / names[label]).mkdir(exist_ok=True)
            payload = file.payload(index, "image")
            path = folder / names[label] / f"{index:09d}.jpg"
            if payload.startswith(b"\xff\xd8\xff"):
                path.write_bytes(payload)
            else:
                Image.fromarray(np.asarray(file[index].image)).save(path, quality=_QUALITY)


def _published(folder: Path, write) -> Path:
    """`folder`, written aside by write(aside) and renamed unless it is there."""
    if folder.is_dir():
        return folder
    make_folder(folder.parent)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(aside)
        try:
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process has made it meanwhile
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _fingerprint(source) -> str:
    """Of names, sizes and times of all photos: what changes when one of them does."""
    digest = []
    for index in range(len(source)):
        state = os.stat(source.name(index))
        digest.append((source.stored_name(index), state.st_size, state.st_mtime_ns))
    return _digest(digest)


def _digest(things: list) -> str:
    return hashlib.sha256(repr(things).encode()).hexdigest()[:12]
