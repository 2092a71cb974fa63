"""Several .betons to one, and one to several: samples are copied as they are stored."""

from pathlib import Path
from typing import Any

from beton import progress, system
from beton.errors import UserError
from beton.format.file import BetonFile
from beton.format.joined import open_beton
from beton.format.parts import part_path
from beton.sources.beton import as_it_is
from beton.writing.options import WriteOptions
from beton.writing.writer import write

_CHUNK = 64


def merge(paths: list[str], out: str) -> dict[str, Any]:
    """Write the samples of several files to `out`, in the order in which they are loaded as one; returns the card.

    Raises UserError, also for a sample whose checksum differs.
    """
    if Path(out).exists():  # perhaps one of the files that were to be merged
        raise UserError(f"{out} exists already", "give the name of a new file first, then those to be merged")
    with open_beton(paths) as file:
        return _copy(file, Path(out), None)


def split(path: str, count: int, folder: str | None = None) -> list[Path]:
    """Write `count` parts of a file, beside it or into `folder`; returns their paths. Raises UserError.

    They are as writes with `part` make them, and are loaded as one by a pattern.
    """
    parts = [f"{number}/{count}" for number in range(1, count + 1)]
    at = Path(path) if folder is None else Path(folder) / Path(path).name
    targets = [part_path(at, part) for part in parts]
    there = next((target for target in targets if target.exists()), None)
    if there:
        raise UserError(f"{there} exists already", "remove it, or give another folder")
    with BetonFile(path) as file:
        for part, target in zip(parts, targets, strict=True):
            _copy(file, target, part)
    return targets


def _copy(file: BetonFile, target: Path, part: str | None) -> dict[str, Any]:
    """Write the samples of an open file, or a part of them."""
    source, seed = as_it_is(file), (file.card or {}).get("seed")
    options = WriteOptions(system.cores(), _CHUNK, seed=seed if isinstance(seed, int) else 0, part=part)
    about = (file.card or {}).get("source")
    if not isinstance(about, dict):
        about = {"name": "beton", "data_dir": file.path, "split": None}
    source, made = options.selected(source), source.fields
    with progress.bar(len(source), "samples") as bar:
        return write(source, target, made, options, about, bar.update)
