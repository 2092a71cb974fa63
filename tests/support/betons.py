"""Betons: written on the spot, taken apart, damaged."""

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from beton.format.card import card_path, read_card
from beton.format.fields.image import Image as ImageField
from beton.format.fields.int import Int
from beton.format.file import BetonFile
from beton.format.records import ALLOCATION, DESCRIPTOR, HEADER, metadata_record
from beton.writing.options import WriteOptions, make_fields
from beton.writing.writer import write
from tests.support.photos import Source, draw_photos
from tests.support.scripts import End, here, options

JPEG, RAW, BLOCKS = 0, 1, 2  # the modes of records, by FFCV's numbers and ours
# The files of a write to a.beton: of one that was interrupted, and of one that has ended
LEFT, DONE = [".a.beton.journal", ".a.beton.partial"], ["a.beton", "a.beton.json"]


def write_source(
    source, path: Path, mode: str = "raw", about=None, progress=lambda n: None, say=print, **given
) -> dict:
    """Write a source; `given` are options of the field image and of WriteOptions. Returns the card."""
    own = {name: given.pop(name) for name in list(given) if name in vars(WriteOptions())}
    fields = make_fields({"image": "image", "label": "int"}, {"write_mode": mode, **given})
    return write(source, path, fields, WriteOptions(**{"num_workers": 2, **own}), about or {}, progress, say)


def write_beton(path: Path, photos: list, mode: str = "raw") -> Path:
    """A .beton of photos whose labels are their numbers."""
    write_source(Source(photos), path, mode)
    return path


def write_classed(folder: Path, longest: int, **counts: int) -> dict[str, Path]:
    """JPEG betons of small photos of ten classes: write_classed(folder, 64, train=264, val=41)."""
    for split, count in counts.items():
        photos = draw_photos(count, longest // 2, longest, seed=len(split))
        source = Source(photos, labels=[number % 10 for number in range(count)])
        source.classes = [f"class {number}" for number in range(10)]
        write_source(source, folder / f"{split}.beton", "jpg")
    return {split: folder / f"{split}.beton" for split in counts}


def write_options(path, data_dir=None, split="train", **cfg) -> list[str]:
    """The command line of write_dataset.py."""
    cfg = {"split": split, "write_path": path, "data_dir": data_dir, "num_workers": 2, **cfg}
    return options({f"cfg.{name}": value for name, value in cfg.items()})


def write_cli(path, data_dir=None, **cfg) -> End:
    """`write_dataset.py --cfg.name=value ...` in this process."""
    return here("write_dataset.py", *write_options(path, data_dir, **cfg))


def write_good(path, data_dir=None, **cfg) -> Path:
    """As write_cli; the write must succeed."""
    done = write_cli(path, data_dir, **cfg)
    assert done.returncode == 0, done.stderr
    return path


def card_of(path: Path) -> dict | None:
    """The card of a .beton."""
    return read_card(card_path(path))


def chosen_jpegs(count: int, seed: int = 0, share: float = 0.5) -> list[bool]:
    """Which of so many photos `proportion` stores as JPEGs."""
    chosen = ImageField(write_mode="proportion", compress_probability=share).choices(count, seed)
    return [mode == "jpg" for mode in chosen]


def files_in(folder: Path) -> list[str]:
    """Names of all files, those that begin with a dot too."""
    return sorted(path.name for path in folder.iterdir())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def payload(path: Path, sample: int) -> np.memmap:
    """The stored bytes of a photo, in the file: they can be changed."""
    with BetonFile(path) as file:
        column = file.columns["image"]
    return np.memmap(path, np.uint8, "r+", int(column.addresses[sample]), int(column.sizes[sample]))


def payloads(path: Path) -> list[bytes]:
    """The stored bytes of every photo."""
    with BetonFile(path) as file:
        return [file.payload(sample, "image") for sample in range(len(file))]


def image_records(path: Path) -> np.ndarray:
    """The records of the images: mode, width, height, data_ptr."""
    with BetonFile(path) as file:
        return file.columns["image"].records


def stored_photos(path: Path) -> list[np.ndarray]:
    """Every photo: raw, decoded by Pillow, or by our kernel if stored as blocks."""
    records = image_records(path)
    return [_decoded(stored, record) for stored, record in zip(payloads(path), records, strict=True)]


def _decoded(stored: bytes, record) -> np.ndarray:
    if record["mode"] == JPEG:
        return np.asarray(Image.open(io.BytesIO(stored)))
    return ImageField().value(record, stored)


def copied(path: Path, target: Path) -> Path:
    """A copy of a .beton with its card."""
    shutil.copy(path, target)
    shutil.copy(card_path(path), card_path(target))
    return target


def damage(path: Path, samples, change=lambda stored: stored.fill(0)) -> Path:
    """Change these samples' payloads (uint8, in place), by default to zeros."""
    for sample in samples:
        change(payload(path, sample))
    return path


def flip_bits(stored: np.ndarray) -> None:
    """A few bytes in the middle of a payload."""
    stored[len(stored) // 2 : len(stored) // 2 + 20] ^= 0x55


def tables(path: Path) -> tuple:
    """The metadata, the allocation table and the header of a .beton with image and label: maps that can be changed."""
    header = np.memmap(path, HEADER, "r+", 0, 1)
    count, at = int(header["num_samples"][0]), HEADER.itemsize + 2 * DESCRIPTOR.itemsize
    metadata = np.memmap(path, metadata_record([ImageField.record, Int.record]), "r+", at, count)
    table = np.memmap(path, ALLOCATION, "r+", int(header["alloc_table_ptr"][0]), count)
    return metadata, table, header
