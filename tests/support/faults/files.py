"""Files that are damaged, or change while they are read."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.betons import payload, tables
from tests.support.faults.table import Source, Wrong, compare, draw, gather, make, part, read_all

fault = part("Damaged and changing files")


def damaged(side, folder, change: Callable[[Path], None], mode="jpg", **how) -> None:
    """Change a good file (of one worker, so it has one page for photos), read it and compare."""
    path, photos = make(side, folder, mode, workers=1)
    change(path)
    compare(*read_all(side, path, **how), photos)


INCOMPLETE = ("a.beton is not a complete .beton file", "write the dataset again")


@fault("truncated within its header", "unclear error: IndexError", "error that names the file", *INCOMPLETE)
def truncated_in_the_header(side, folder):
    damaged(side, folder, lambda path: os.truncate(path, 10))


@fault("truncated within its tables", "unclear error: negative dimensions", "error that names the file",
       *INCOMPLETE)  # fmt: skip
def truncated_in_the_tables(side, folder):
    damaged(side, folder, lambda path: os.truncate(path, 24 + 2 * 1041 + 100))


@fault("truncated among the photos", "unclear error: negative dimensions", "error that names the file",
       *INCOMPLETE)  # fmt: skip
def truncated_in_the_photos(side, folder):
    damaged(side, folder, lambda path: os.truncate(path, path.stat().st_size // 2))


@fault("the last entries of its allocation table are lost", "wrong pixels: of other samples",
       "error that names the file", *INCOMPLETE)  # fmt: skip
def entries_lost(side, folder):
    damaged(side, folder, lambda path: os.truncate(path, path.stat().st_size - 10 * 24))


@fault("another format version", "unclear error: AssertionError without the file", "error that names file and version",
       "a.beton", "format version 7 instead of 2")  # fmt: skip
def other_version(side, folder):
    def change(path):
        tables(path)[2]["version"] = 7

    damaged(side, folder, change)


@fault("the address of its allocation table is zero", "hangs: opens; a traceback, then silence",
       "error that says that writing was interrupted", *INCOMPLETE, "interrupted")  # fmt: skip
def table_address_zero(side, folder):
    def change(path):
        tables(path)[2]["alloc_table_ptr"] = 0

    damaged(side, folder, change, "raw", crop=True)


@fault("its metadata is zero, as an interrupted writer leaves it", "aborts: on the first batch",
       "error that says that writing was interrupted", *INCOMPLETE, "interrupted")  # fmt: skip
def metadata_zero(side, folder):
    def change(path):
        tables(path)[0].view(np.uint8)[:] = 0

    damaged(side, folder, change, crop=True)


@fault("the address of a photo lies far beyond the file", "wrong pixels: of no photo", "error that names the file",
       *INCOMPLETE)  # fmt: skip
def address_beyond_the_file(side, folder):
    def change(path):
        tables(path)[0]["f0"]["data_ptr"][3] = 1 << 60

    damaged(side, folder, change)


@fault("the height of a photo is wrong", "hangs: a traceback, then silence", "error that names the file",
       *INCOMPLETE)  # fmt: skip
def wrong_height(side, folder):
    def change(path):
        tables(path)[0]["f0"]["height"][3] = 20000

    damaged(side, folder, change, "raw", crop=True)


@fault("the bytes of a JPEG are zero", "wrong pixels: of another photo, with this one's label",
       "error that names the sample; or left out, or replaced (`data.on_error`)", "sample 53 of", "a.beton is damaged",
       "field 'image'")  # fmt: skip
def jpeg_zero(side, folder):
    path, photos = make(side, folder, count=60)
    payload(path, 53).fill(0)
    compare(*read_all(side, path), photos)


@fault("the second half of a JPEG is lost", "wrong pixels: a part of the photo", "error that names the sample",
       "sample 13 of", "a.beton is damaged", "field 'image'")  # fmt: skip
def jpeg_half(side, folder):
    def change(path):
        stored = payload(path, 13)
        stored[len(stored) // 2 :] = 0

    damaged(side, folder, change)


@fault("the bytes of a raw photo are others", "wrong pixels: those that lie there",
       "error that names the sample, with `data.verify=1`", "sample 13 of", "a.beton is damaged",
       "its checksum differs")  # fmt: skip
def raw_changed(side, folder):
    damaged(side, folder, lambda path: payload(path, 13)[:1500].fill(99), "raw", verify=True)


@fault("two photos have changed their places in the tables", "wrong pixels: each with the other's label",
       "error that names the file", *INCOMPLETE)  # fmt: skip
def photos_swapped(side, folder):
    def change(path):
        addresses = tables(path)[0]["f0"]["data_ptr"]
        addresses[[3, 7]] = addresses[[7, 3]]

    damaged(side, folder, change, "raw")


@fault("a label is another", "wrong samples: the other label", "error that names the file (checksum of its card)",
       "the tables of", "a.beton are damaged", "checksum")  # fmt: skip
def label_changed(side, folder):
    def change(path):
        tables(path)[0]["f1"][3] = 5

    damaged(side, folder, change)


@fault("two fields whose names have the same first 16 characters", "wrong samples: one of the two is gone",
       "error that names the file", "a.beton", "two of its fields have the same name")  # fmt: skip
def names_truncated(side, folder):
    """What DatasetWriter makes of such names."""
    from beton.format.records import DESCRIPTOR, HEADER

    path, _ = make(side, folder)
    fields = np.memmap(path, DESCRIPTOR, "r+", HEADER.itemsize, 2)
    fields["name"][:] = np.frombuffer(b"the_left_picture", np.uint8)
    del fields
    for batch in side.default_loader(path):
        if len(batch) != 2:
            raise Wrong("wrong samples", f"{len(batch)} field")


@fault("truncated while it is read", "aborts: SIGBUS", "error that names the file",
       "a.beton was truncated while it was in use", apart=True)  # fmt: skip
def truncated_while_read(side, folder):
    path, _ = make(side, folder, "raw", 300)
    batches = iter(side.loader(path, batch_size=2))
    next(batches)
    os.truncate(path, 5000)
    for _ in batches:
        pass


@fault("truncated while it is read, not in memory", "wrong pixels: what could not be read is black",
       "error that names the file", "a.beton was truncated while it was in use", apart=True)  # fmt: skip
def truncated_while_read_from_disk(side, folder):
    path, photos = make(side, folder, "raw", 40)
    loader = side.loader(path, in_memory=False)
    os.truncate(path, 5000)
    compare(*gather(side, loader), photos)


@fault("written anew while it is read", "aborts or wrong pixels: SIGBUS; or the new photos with the old labels",
       "an epoch that has begun reads the old file to its end", apart=True)  # fmt: skip
def replaced_while_read(side, folder):
    path, photos = make(side, folder, "raw", 60)
    batches = iter(side.loader(path, batch_size=2))
    begun = gather(side, [next(batches)])
    side.write(Source(draw(60, seed=5)), path, "raw")
    compare(*map(np.concatenate, zip(begun, gather(side, batches), strict=True)), photos)
