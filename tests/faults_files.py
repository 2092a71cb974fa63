"""Files that are damaged, or change while they are read."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fault_table import Source, Wrong, compare, draw, gather, make, part, read_all

fault = part("Damaged and changing files")


def tables(path: Path) -> tuple:
    """The metadata (a map of the file that can be written to), the allocation table, and the header."""
    from pipelines import beton

    fields = [beton.RGB_FIELD, beton.INT_FIELD]
    header = np.memmap(path, beton.HEADER, "r+", 0, 1)
    count, at = int(header["num_samples"][0]), beton.HEADER.itemsize + 2 * beton.FIELD.itemsize
    metadata = np.memmap(path, beton.metadata_type(fields), "r+", at, count)
    table = np.memmap(path, beton.ALLOCATION, "r+", int(header["alloc_table_ptr"][0]), count)
    return metadata, table, header


def payload(path: Path, sample: int) -> np.memmap:
    """The stored bytes of a sample, which can be written to."""
    metadata, table, _ = tables(path)
    (entry,) = table[table["ptr"] == metadata["f0"]["data_ptr"][sample]]
    return np.memmap(path, np.uint8, "r+", int(entry["ptr"]), int(entry["size"]))


def damaged(side, folder, change: Callable[[Path], None], mode="jpg", **how) -> None:
    """Change a good file (of one worker, so it has one page for photos), read it and compare."""
    path, photos = make(side, folder, mode, workers=1)
    change(path)
    compare(*read_all(side, path, **how), photos)


INCOMPLETE = ("a.beton is not a complete .beton file", "write the dataset again")


@fault(
    "cut off within its header",
    stock="unclear error",
    seen="IndexError",
    ours="error that names the file",
    words=INCOMPLETE,
)
def cut_in_the_header(side, folder):
    damaged(side, folder, lambda path: os.truncate(path, 10))


@fault(
    "cut off within its tables",
    stock="unclear error",
    seen="negative dimensions",
    ours="error that names the file",
    words=INCOMPLETE,
)
def cut_in_the_tables(side, folder):
    damaged(side, folder, lambda path: os.truncate(path, 24 + 2 * 1041 + 100))


@fault(
    "cut off among the photos",
    stock="unclear error",
    seen="negative dimensions",
    ours="error that names the file",
    words=INCOMPLETE,
)
def cut_in_the_photos(side, folder):
    damaged(side, folder, lambda path: os.truncate(path, path.stat().st_size // 2))


@fault(
    "the last entries of its allocation table are lost",
    stock="wrong pixels",
    seen="of other samples",
    ours="error that names the file",
    words=INCOMPLETE,
)
def entries_lost(side, folder):
    damaged(side, folder, lambda path: os.truncate(path, path.stat().st_size - 10 * 24))


@fault(
    "another format version",
    stock="unclear error",
    seen="AssertionError without the file",
    ours="error that names file and version",
    words=("a.beton", "format version 7 instead of 2"),
)
def other_version(side, folder):
    def change(path):
        tables(path)[2]["version"] = 7

    damaged(side, folder, change)


@fault(
    "the address of its allocation table is zero",
    stock="hangs",
    seen="opens; a traceback, then silence",
    ours="error that says that writing was interrupted",
    words=(*INCOMPLETE, "interrupted"),
)
def table_address_zero(side, folder):
    def change(path):
        tables(path)[2]["alloc_table_ptr"] = 0

    damaged(side, folder, change, "raw", crop=True)


@fault(
    "its metadata is zero, as an interrupted writer leaves it",
    stock="aborts",
    seen="on the first batch",
    ours="error that says that writing was interrupted",
    words=(*INCOMPLETE, "interrupted"),
)
def metadata_zero(side, folder):
    def change(path):
        tables(path)[0].view(np.uint8)[:] = 0

    damaged(side, folder, change, crop=True)


@fault(
    "the address of a photo lies far beyond the file",
    stock="wrong pixels",
    seen="of no photo",
    ours="error that names the file",
    words=INCOMPLETE,
)
def address_beyond_the_file(side, folder):
    def change(path):
        tables(path)[0]["f0"]["data_ptr"][3] = 1 << 60

    damaged(side, folder, change)


@fault(
    "the height of a photo is wrong",
    stock="hangs",
    seen="a traceback, then silence",
    ours="error that names the file",
    words=INCOMPLETE,
)
def wrong_height(side, folder):
    def change(path):
        tables(path)[0]["f0"]["height"][3] = 20000

    damaged(side, folder, change, "raw", crop=True)


@fault(
    "the bytes of a JPEG are zero",
    stock="wrong pixels",
    seen="of another photo, with this one's label",
    ours="error that names the sample; or left out, or replaced (`data.on_error`)",
    words=("sample 53 of", "a.beton is damaged", "field 'image'"),
)
def jpeg_zero(side, folder):
    path, photos = make(side, folder, count=60)
    payload(path, 53).fill(0)
    compare(*read_all(side, path), photos)


@fault(
    "the second half of a JPEG is lost",
    stock="wrong pixels",
    seen="a part of the photo",
    ours="error that names the sample",
    words=("sample 13 of", "a.beton is damaged", "field 'image'"),
)
def jpeg_half(side, folder):
    def change(path):
        stored = payload(path, 13)
        stored[len(stored) // 2 :] = 0

    damaged(side, folder, change)


@fault(
    "the bytes of a raw photo are others",
    stock="wrong pixels",
    seen="those that lie there",
    ours="error that names the sample, with `data.verify=1`",
    words=("sample 13 of", "a.beton is damaged", "its checksum differs"),
)
def raw_changed(side, folder):
    damaged(side, folder, lambda path: payload(path, 13)[:1500].fill(99), "raw", verify=True)


@fault(
    "two photos have changed their places in the tables",
    stock="wrong pixels",
    seen="each with the other's label",
    ours="error that names the file",
    words=INCOMPLETE,
)
def photos_swapped(side, folder):
    def change(path):
        addresses = tables(path)[0]["f0"]["data_ptr"]
        addresses[[3, 7]] = addresses[[7, 3]]

    damaged(side, folder, change, "raw")


@fault(
    "a label is another",
    stock="wrong samples",
    seen="the other label",
    ours="error that names the file (checksum of its card)",
    words=("the tables of", "a.beton are damaged", "checksum"),
)
def label_changed(side, folder):
    def change(path):
        tables(path)[0]["f1"][3] = 5

    damaged(side, folder, change)


@fault(
    "two fields whose names have the same first 16 characters",
    stock="wrong samples",
    seen="one of the two is gone",
    ours="error that names the file",
    words=("a.beton", "two of its fields have the same name"),
)
def names_cut_off(side, folder):
    """What DatasetWriter makes of such names."""
    from pipelines import beton

    path, _ = make(side, folder)
    fields = np.memmap(path, beton.FIELD, "r+", beton.HEADER.itemsize, 2)
    fields["name"][:] = np.frombuffer(b"the_left_picture", np.uint8)
    del fields
    for batch in side.default_loader(path):
        if len(batch) != 2:
            raise Wrong("wrong samples", f"{len(batch)} field")


@fault(
    "cut off while it is read",
    stock="aborts",
    seen="SIGBUS",
    ours="error that names the file",
    words=("a.beton was cut off while it was in use",),
    apart=True,
)
def cut_while_read(side, folder):
    path, _ = make(side, folder, "raw", 300)
    batches = iter(side.loader(path, batch_size=2))
    next(batches)
    os.truncate(path, 5000)
    for _ in batches:
        pass


@fault(
    "cut off while it is read, not in memory",
    stock="wrong pixels",
    seen="what could not be read is black",
    ours="error that names the file",
    words=("a.beton was cut off while it was in use",),
    apart=True,
)
def cut_while_read_from_disk(side, folder):
    path, photos = make(side, folder, "raw", 40)
    loader = side.loader(path, in_memory=False)
    os.truncate(path, 5000)
    compare(*gather(side, loader), photos)


@fault(
    "written anew while it is read",
    stock="aborts or wrong pixels",
    seen="SIGBUS; or the new photos with the old labels",
    ours="an epoch that has begun reads the old file to its end",
    apart=True,
)
def replaced_while_read(side, folder):
    path, photos = make(side, folder, "raw", 60)
    batches = iter(side.loader(path, batch_size=2))
    begun = gather(side, [next(batches)])
    side.write(Source(draw(60, seed=5)), path, "raw")
    compare(*map(np.concatenate, zip(begun, gather(side, batches), strict=True)), photos)
