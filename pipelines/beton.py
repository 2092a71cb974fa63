"""What a .beton says of itself: its tables (FFCV's format, version 2) and the card beside it.

Layout of the file, little-endian: header, field descriptors, one metadata record a sample, padding to
a page, pages with the payloads, allocation table (sample, address, size of each payload) to the end.
"""

import json
import os
from dataclasses import dataclass
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
CARD_VERSION = 1


@dataclass(frozen=True)
class Index:
    """The tables of a .beton: everything in it but the payloads.

    `fields` maps names to type ids; `metadata[name]` has one record a sample; `sizes` (int64, one a
    sample) are the payload bytes of the image field; `page_size` is in bytes.
    """

    path: str
    num_samples: int
    page_size: int
    fields: dict[str, int]
    metadata: dict[str, np.ndarray]
    sizes: np.ndarray


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


def _read_header(path: str, size: int) -> np.void:
    if size < HEADER.itemsize:
        raise _damaged(path, f"it has only {size} bytes")
    header = np.fromfile(path, HEADER, count=1)[0]
    if header["version"] != VERSION:
        raise _damaged(path, f"format version {header['version']} instead of {VERSION}")
    if not HEADER.itemsize <= header["alloc_table_ptr"] <= size:
        raise _damaged(path, "the address of its allocation table lies outside the file")
    if header["num_samples"] == 0:
        raise UserError(f"{path} has no samples", "write a dataset that has some")
    # Not read to find out: with a wrong address it may be most of the file
    entries, rest = divmod(size - int(header["alloc_table_ptr"]), ALLOCATION.itemsize)
    if rest or entries > int(header["num_samples"]) * int(header["num_fields"]):
        raise _damaged(path, "its allocation table has not the size that it should have")
    return header


def read_index(path: str | Path) -> Index:
    """Read and check the tables of a .beton; raises UserError when they cannot be those of a complete file."""
    path = str(path)
    if not os.path.exists(path):
        raise UserError(f"there is no file {path}", "give the path of a .beton, or write one with write_dataset.py")
    if not os.path.isfile(path):
        raise UserError(f"{path} is not a .beton file", "give the path of a .beton, or write one with write_dataset.py")
    size = os.path.getsize(path)
    header = _read_header(path, size)
    num_fields, num_samples = int(header["num_fields"]), int(header["num_samples"])
    fields_end = HEADER.itemsize + num_fields * FIELD.itemsize
    if fields_end > size:
        raise _damaged(path, "its field table is cut off")
    descriptors = np.fromfile(path, FIELD, count=num_fields, offset=HEADER.itemsize)
    names = [bytes(d["name"]).split(b"\0")[0].decode("ascii", "replace") for d in descriptors]
    type_ids = [int(d["type_id"]) for d in descriptors]
    if len(set(names)) < len(names):  # FFCV cuts names off after 16 bytes
        raise _damaged(path, "two of its fields have the same name")
    unknown = [n for n, t in zip(names, type_ids, strict=True) if t not in FIELD_TYPES]
    if unknown:
        raise UserError(f"{path} has fields of an unknown type: {', '.join(unknown)}", "leave them out of the file")
    if not set(IMAGE_FIELDS) & set(type_ids):
        raise UserError(f"{path} has no image field", "write it with an RGBImageField named 'image'")
    record = metadata_type(type_ids)
    if fields_end + num_samples * record.itemsize > size:
        raise _damaged(path, "its metadata is cut off")
    metadata = np.fromfile(path, record, count=num_samples, offset=fields_end)
    columns = {name: np.ascontiguousarray(metadata[f"f{i}"]) for i, name in enumerate(names)}
    table = np.fromfile(path, ALLOCATION, offset=int(header["alloc_table_ptr"]))
    sizes = _payload_sizes(path, size, columns, dict(zip(names, type_ids, strict=True)), table)
    return Index(path, num_samples, int(header["page_size"]), dict(zip(names, type_ids, strict=True)), columns, sizes)


def _payload_sizes(path, file_size, columns, fields, table) -> np.ndarray:
    """Bytes of each sample's image payload, after checking that every one lies inside the file."""
    name = next(n for n, t in fields.items() if t in IMAGE_FIELDS)
    image, modes = columns[name], (JPEG, RAW) if fields[name] == RGB_FIELD else (JPEG, RAW, BLOCKS)
    table = table[np.argsort(table["ptr"], kind="stable")]
    at = np.searchsorted(table["ptr"], image["data_ptr"])
    found = at < len(table)
    if not found.all() or (table["ptr"][at] != image["data_ptr"]).any():
        raise _damaged(path, "samples without an entry in the allocation table")
    sizes = table["size"][at]
    # Not start + size > file_size: that sum may be beyond 64 bits
    if (sizes > file_size).any() or (image["data_ptr"] > file_size - sizes).any():
        raise _damaged(path, "payloads beyond the end of the file")
    sizes = sizes.astype(np.int64)
    width, height = image["width"].astype(np.int64), image["height"].astype(np.int64)
    if (width * height == 0).any() or not np.isin(image["mode"], modes).all():
        raise _damaged(path, "samples without a size or of an unknown mode")
    if ((image["mode"] == RAW) & (sizes != 3 * width * height)).any():
        raise _damaged(path, "raw samples whose size is not that of their pixels")
    if ((image["mode"] == BLOCKS) & (sizes != blocks_size(height, width))).any():
        raise _damaged(path, "samples stored as blocks whose size is not that of their pixels")
    return sizes


def card_path(path: str | Path) -> Path:
    """Where the card of a .beton lies: `<file>.json`, beside it."""
    return Path(f"{path}.json")


def read_card(path: str | Path) -> dict | None:
    """The card of a .beton, or None where it has none (a file from elsewhere)."""
    card = card_path(path)
    if not card.exists():
        return None
    try:
        content = json.loads(card.read_text())
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


def partial_path(path: Path) -> Path:
    """Where a file lies until it is complete."""
    return path.with_name(f".{path.name}.partial")


def card_text(card: dict) -> str:
    """A card as the text of its file."""
    return json.dumps(card, indent=1) + "\n"
