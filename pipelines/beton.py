"""What a .beton says of itself: its tables (FFCV's format, version 2) and the card beside it.

Layout of the file, little-endian: header, field descriptors, one metadata record a sample, padding to
a page, pages with the payloads, allocation table (sample, address, size of each payload) to the end.
"""

import base64
import binascii
import json
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.errors import UserError

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype([("type_id", "<u1"), ("name", ("<u1", 16)), ("arguments", ("<u1", 1024))], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])

INT_FIELD, RGB_FIELD, BLOCKS_FIELD = 1, 2, 7
IMAGE_FIELDS = (RGB_FIELD, BLOCKS_FIELD)
# Metadata records by type id. FFCV 1.0.2 knows all but the last: images some of which are stored as blocks.
_POINTER = np.dtype([("ptr", "<u8"), ("size", "<u8")])
FIELD_TYPES = {
    0: ("float", np.dtype("<f8")),
    INT_FIELD: ("int", np.dtype("<i8")),
    RGB_FIELD: ("rgb_image", IMAGE),
    3: ("bytes", _POINTER),
    4: ("ndarray", np.dtype("<u8")),
    5: ("json", _POINTER),
    6: ("torch_tensor", np.dtype("<u8")),
    BLOCKS_FIELD: ("blocks_image", IMAGE),
}
JPEG, RAW, BLOCKS = 0, 1, 2
MODE_NAMES = {JPEG: "jpg", RAW: "raw", BLOCKS: "blocks"}
CARD_VERSION = 1


@dataclass(frozen=True)
class Index:
    """The tables of a .beton: everything in it but the payloads; and its card.

    `fields` maps names to type ids; `metadata[name]` has one record a sample; `sizes` (int64, one a
    sample) are the payload bytes of the image field; `page_size` is in bytes; `file_id` tells which file it
    was. `card` is None where there is none, `checksums` (uint32, CRC-32 of each image payload) where
    there is none or it has none.
    """

    path: str
    num_samples: int
    page_size: int
    fields: dict[str, int]
    metadata: dict[str, np.ndarray]
    sizes: np.ndarray
    file_id: tuple[int, ...]
    card: dict | None = None
    checksums: np.ndarray | None = None


def blocks_size(height, width):
    """Bytes of a photo stored as blocks (pipelines/kernels/blocks.h has the layout), for integers or int64 arrays."""

    def plane(height, width):
        rows, columns = -(-height // 4), -(-width // 8)
        return rows * (4 + (columns + 1) // 2 + 15 * columns)

    return plane(height, width) + 2 * plane((height + 1) // 2, (width + 1) // 2) + 32


def metadata_type(type_ids: list[int]) -> np.dtype:
    """The record that describes one sample whose fields have these type ids."""
    return np.dtype([(f"f{i}", FIELD_TYPES[t][1]) for i, t in enumerate(type_ids)], align=True)


def _damaged(path: str, why: str) -> UserError:
    return UserError(f"{path} is not a complete .beton file ({why})", "write the dataset again")


def file_id(file) -> tuple[int, ...]:
    """Which file an open file is: device, number and size."""
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino, stat.st_size


def _read_header(file, path: str, size: int) -> np.void:
    if size < HEADER.itemsize:
        raise _damaged(path, f"it has only {size} bytes")
    header = _records(file, path, HEADER, 1, 0)[0]
    if header["version"] != VERSION:
        raise _damaged(path, f"format version {header['version']} instead of {VERSION}")
    if header["alloc_table_ptr"] == 0:  # FFCV writes it last
        raise _damaged(path, "it has no address of its allocation table: writing it was interrupted")
    if not HEADER.itemsize <= header["alloc_table_ptr"] <= size:
        raise _damaged(path, "the address of its allocation table lies outside the file: it is cut off, or damaged")
    if header["num_samples"] == 0:
        raise UserError(f"{path} has no samples", "write a dataset that has some")
    if int(header["page_size"]).bit_count() != 1:
        raise _damaged(path, f"a page size of {header['page_size']}, not a power of two")
    # Not read to find out: with a wrong address it may be most of the file
    entries, rest = divmod(size - int(header["alloc_table_ptr"]), ALLOCATION.itemsize)
    if rest or entries > int(header["num_samples"]) * int(header["num_fields"]):
        raise _damaged(path, "its allocation table has not the size that it should have")
    return header


def _records(file, path: str, dtype: np.dtype, count: int, offset: int) -> np.ndarray:
    file.seek(offset)
    content = file.read(count * dtype.itemsize)
    if len(content) < count * dtype.itemsize:
        raise _damaged(path, "it became shorter while it was read")
    return np.frombuffer(content, dtype)


def read_index(path: str | Path, card_at: Path | None = None) -> Index:
    """Read and check the tables of a .beton, with its card if it has one (`card_at`: one that lies elsewhere).

    Raises UserError when they cannot be those of a complete file, or the card is not that of this file.
    """
    path = str(path)
    if not os.path.exists(path):
        raise UserError(f"there is no file {path}", "give the path of a .beton, or write one with write_dataset.py")
    if not os.path.isfile(path):
        raise UserError(f"{path} is not a .beton file", "give the path of a .beton, or write one with write_dataset.py")
    try:
        with open(path, "rb") as file:
            index, checksum = _read_tables(file, path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})", "check the file and its disk") from None
    card = _read_card(card_at or card_path(path))
    return index if card is None else replace(index, card=card, checksums=_check_card(index, card, checksum))


def _read_tables(file, path: str) -> tuple[Index, int]:
    """The index without its card, and the CRC-32 of all tables."""
    size = os.fstat(file.fileno()).st_size
    header = _read_header(file, path, size)
    num_fields, num_samples = int(header["num_fields"]), int(header["num_samples"])
    fields_end = HEADER.itemsize + num_fields * FIELD.itemsize
    if fields_end > size:
        raise _damaged(path, "its field table is cut off")
    descriptors = _records(file, path, FIELD, num_fields, HEADER.itemsize)
    fields = _read_fields(path, descriptors)
    record = metadata_type(list(fields.values()))
    tables_end, table_at = fields_end + num_samples * record.itemsize, int(header["alloc_table_ptr"])
    if tables_end > size:
        raise _damaged(path, "its metadata is cut off")
    if tables_end > table_at:
        raise _damaged(path, "the address of its allocation table lies within other tables")
    metadata = _records(file, path, record, num_samples, fields_end)
    columns = {name: np.ascontiguousarray(metadata[f"f{i}"]) for i, name in enumerate(fields)}
    table = _records(file, path, ALLOCATION, (size - table_at) // ALLOCATION.itemsize, table_at)
    sizes = _payload_sizes(path, columns, fields, table, tables_end, table_at)
    checksum = 0
    for part in (header.reshape(1), descriptors, metadata, table):
        checksum = zlib.crc32(part.view(np.uint8), checksum)
    return Index(path, num_samples, int(header["page_size"]), fields, columns, sizes, file_id(file)), checksum


def _read_fields(path: str, descriptors: np.ndarray) -> dict[str, int]:
    """Type ids by name."""
    names = [bytes(d["name"]).split(b"\0")[0].decode("ascii", "replace") for d in descriptors]
    type_ids = [int(d["type_id"]) for d in descriptors]
    if len(set(names)) < len(names):  # FFCV cuts names off after 16 bytes
        raise _damaged(path, "two of its fields have the same name")
    unknown = [n for n, t in zip(names, type_ids, strict=True) if t not in FIELD_TYPES]
    if unknown:
        raise UserError(f"{path} has fields of an unknown type: {', '.join(unknown)}", "leave them out of the file")
    if not set(IMAGE_FIELDS) & set(type_ids):
        raise UserError(f"{path} has no image field", "write it with an RGBImageField named 'image'")
    return dict(zip(names, type_ids, strict=True))


def image_field(fields: dict[str, int]) -> str:
    """Name of the image field; the first one, if there are more."""
    return next(name for name, type_id in fields.items() if type_id in IMAGE_FIELDS)


def _payload_sizes(path, columns, fields, table, start, stop) -> np.ndarray:
    """Bytes of each sample's image payload, after checking that all are its own and lie from start to stop."""
    name = image_field(fields)
    image, modes = columns[name], (JPEG, RAW) if fields[name] == RGB_FIELD else (JPEG, RAW, BLOCKS)
    if not image["data_ptr"].any():
        raise _damaged(path, "its metadata is zero: writing it was interrupted")
    table = table[table["size"] > 0]
    table = table[np.argsort(table["ptr"], kind="stable")]
    at = np.searchsorted(table["ptr"], image["data_ptr"])
    found = at < len(table)
    if not found.all() or (table["ptr"][at] != image["data_ptr"]).any():
        raise _damaged(path, "samples without an entry in the allocation table")
    # Not ptr + size > stop: that sum may be beyond 64 bits
    if (table["size"] > stop).any() or (table["ptr"] > stop - table["size"]).any() or table["ptr"][0] < start:
        raise _damaged(path, "payloads beyond the place for payloads")
    if (table["ptr"][1:] < (table["ptr"] + table["size"])[:-1]).any():
        raise _damaged(path, "payloads that overlap")
    if (table["sample_id"][at] != np.arange(len(image))).any():
        raise _damaged(path, "samples whose payloads are those of others")
    sizes = table["size"][at].astype(np.int64)
    width, height = image["width"].astype(np.int64), image["height"].astype(np.int64)
    if (width * height == 0).any() or not np.isin(image["mode"], modes).all():
        raise _damaged(path, "samples without a size or of an unknown mode")
    if ((image["mode"] == RAW) & (sizes != 3 * width * height)).any():
        raise _damaged(path, "raw samples whose size is not that of their pixels")
    if ((image["mode"] == BLOCKS) & (sizes != blocks_size(height, width))).any():
        raise _damaged(path, "samples stored as blocks whose size is not that of their pixels")
    return sizes


def _check_card(index: Index, card: dict, checksum: int) -> np.ndarray | None:
    """The samples' checksums, if the card has some; raises UserError when it is not the card of this file."""
    path, where, size = index.path, card_path(index.path), index.file_id[2]
    if card.get("bytes", size) != size:
        raise UserError(
            f"{path} has {size} bytes, and its card {where} is of a file of {card['bytes']}",
            "write the dataset again, or delete the card if it is of another file",
        )
    found = card.get("checksums")
    if found is None:
        return None
    try:
        samples = np.frombuffer(base64.b64decode(found["samples"], validate=True), "<u4")
        expected = int(found["index"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        samples, expected = [], 0
    if len(samples) != index.num_samples:
        raise UserError(f"the checksums in {where} are damaged", "delete it or write the dataset again")
    if expected != checksum:
        raise UserError(
            f"the tables of {path} are damaged, or its card {where} is of another file (the checksum differs)",
            "write the dataset again, or delete the card if it is of another file",
        )
    return samples


def card_path(path: str | Path) -> Path:
    """Where the card of a .beton lies: `<file>.json`, beside it."""
    return Path(f"{path}.json")


def read_card(path: str | Path) -> dict | None:
    """The card of a .beton, or None where it has none (a file from elsewhere)."""
    return _read_card(card_path(path))


def _read_card(card: Path) -> dict | None:
    if not os.path.exists(card):
        return None
    if not os.path.isfile(card):  # reading a pipe would wait for ever
        raise UserError(f"{card} is not a file", "remove it or write the dataset again")
    try:
        content = json.loads(card.read_text())
    except OSError as error:
        raise UserError(f"cannot read {card} ({error.strerror or error})", "check the file and its disk") from None
    except ValueError as error:
        raise UserError(f"{card} is not valid JSON ({error})", "delete it or write the dataset again") from None
    if not isinstance(content, dict):
        raise UserError(f"{card} is not the card of a .beton", "delete it or write the dataset again")
    return content


def publish(path: Path, text: str) -> None:
    """Write a text file aside and rename it, so that nobody ever sees half of it."""
    aside = partial_path(path)
    aside.write_text(text)
    os.replace(aside, path)


def sync_folder(folder: Path) -> None:
    """Have the names of renamed files on the disk, so that a power cut does not undo them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_path(path: Path) -> Path:
    """Where a file lies until it is complete."""
    return path.with_name(f".{path.name}.partial")


def card_text(card: dict) -> str:
    """A card as the text of its file."""
    return json.dumps(card, indent=1) + "\n"
