"""Faults while a data set is written."""

import hashlib
import io
import os
import signal
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.faults.table import (
    SIDE,
    Source,
    Wrong,
    compare,
    difference,
    draw,
    full_disk,
    part,
    read_all,
    with_third,
    write_and_compare,
)
from tests.support.photos import encoded

fault = part("Writing a data set")


@fault("the source raises an exception while it reads a photo", "hangs: a worker's traceback, then silence",
       "error that names photo and exception", "photo 3", "KeyError")  # fmt: skip
def exception_in_the_source(side, folder):
    side.write(Source(draw(12), lambda i: {}["size"] if i == 3 else None), folder / "a.beton")


@fault("a photo file is truncated", "hangs: a worker's traceback, then silence",
       "error that names the photo; or left out and listed, with `cfg.on_error=skip`", "cannot read photo 3",
       "skip")  # fmt: skip
def photo_truncated(side, folder):
    photo = encoded(Image.fromarray(draw(1)[0]).resize((300, 300)), "JPEG")
    side.write(with_third(draw(12), photo[: len(photo) // 2]), folder / "a.beton")


@fault("a photo is deleted while the data set is written", "hangs: a worker's traceback, then silence",
       "error that names the photo", "photo 3", "No such file")  # fmt: skip
def photo_vanishes(side, folder):
    photo = folder / "photo.png"
    photo.write_bytes(b"there")

    def before(i):
        if i == 1:
            photo.unlink()
        if i == 3:
            photo.read_bytes()

    side.write(Source(draw(12), before), folder / "a.beton", workers=1)


@fault("a grey photo", "hangs: IndexError in a worker, then silence", "three equal channels")
def grey_photo(side, folder):
    photos = draw(12)
    grey = Image.fromarray(photos[3]).convert("L")
    source = with_third(photos, encoded(grey))
    write_and_compare(side, folder, source, with_third(photos, np.asarray(grey.convert("RGB"))).photos)


@fault("a photo with transparency (RGBA)", "hangs: ValueError in a worker, then silence",
       "stored without transparency")  # fmt: skip
def transparent_photo(side, folder):
    photos = draw(12)
    image = Image.fromarray(photos[3]).convert("RGBA")
    image.putalpha(200)
    write_and_compare(side, folder, with_third(photos, encoded(image)), photos)


@fault("a CMYK JPEG", "hangs: ValueError in a worker, then silence", "converted to RGB")
def cmyk_photo(side, folder):
    photos = draw(12)
    cmyk = encoded(Image.fromarray(photos[3]).convert("CMYK"), "JPEG", quality=95)
    rgb = np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB"))
    write_and_compare(side, folder, with_third(photos, cmyk), with_third(photos, rgb).photos)


@fault("a PNG of 16 bits a pixel", "hangs: ValueError in a worker, then silence", "its upper 8 bits")
def sixteen_bit_photo(side, folder):
    photos = draw(12)
    grey = photos[3][:, :, 0]
    deep = encoded(Image.fromarray(grey.astype(np.uint16) * 257))
    write_and_compare(side, folder, with_third(photos, deep), with_third(photos, np.stack([grey] * 3, -1)).photos)


@fault("a 16-bit PNG in a folder of photos (stock: torchvision's ImageFolder)", "wrong pixels: white",
       "its upper 8 bits")  # fmt: skip
def sixteen_bit_file(side, folder):
    grey = draw(1)[0][:, :, 0]
    (folder / "photos/c0").mkdir(parents=True)
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "photos/c0/a.png")
    side.write_folder(folder / "photos", folder / "a.beton", write_mode="raw")
    compare(*read_all(side, folder / "a.beton"), [np.stack([grey] * 3, -1)])


@fault("pixels that are floats", "hangs: ValueError in a worker, then silence", "error that names photo and type",
       "photo 3", "float32")  # fmt: skip
def float_pixels(side, folder):
    side.write(with_third(draw(12), np.zeros((SIDE, SIDE, 3), np.float32)), folder / "a.beton")


@fault("a photo with a side of more than 65,535 pixels", "hangs: OverflowError in a worker, then silence",
       "error that names the photo and the limit", "photo 3", "65535")  # fmt: skip
def long_photo(side, folder):
    side.write(with_third(draw(12), np.zeros((65536, 1, 3), np.uint8)), folder / "a.beton")


@fault("a raw photo larger than a page", "hangs: ValueError in a worker, then silence",
       "it is stored: pages grow")  # fmt: skip
def photo_larger_than_a_page(side, folder):
    side.write(with_third(draw(12), np.zeros((2000, 2000, 3), np.uint8)), folder / "a.beton")


@fault("a label that is no class", "wrong samples: 1.5 is stored as 1", "error that names photo and label",
       "cannot store photo 3 (label: 1.5")  # fmt: skip
def label_of_no_class(side, folder):
    labels = [0, 1, 2, 1.5, 4, 5]
    side.write(Source(draw(6), labels=labels), folder / "a.beton")
    compare(*read_all(side, folder / "a.beton"), draw(6), labels)


@fault("a data set without photos", "unclear error: ValueError about a size", "error that says so",
       "there are no samples to write")  # fmt: skip
def no_photos(side, folder):
    side.write(Source([]), folder / "a.beton")


@fault("a pipe is named like a photo", "hangs: a worker waits for its content", "error that names it", "pipe.png",
       "not an ordinary file")  # fmt: skip
def pipe_among_the_photos(side, folder):
    (folder / "photos/c0").mkdir(parents=True)
    for i, photo in enumerate(draw(3)):
        Image.fromarray(photo).save(folder / f"photos/c0/{i}.png")
    os.mkfifo(folder / "photos/c0/pipe.png")
    side.write_folder(folder / "photos", folder / "a.beton", write_mode="raw")


@fault("the disk is full", "hangs: OSError in a worker, then silence", "error that names the file; nothing is left",
       "cannot write", "a.beton", "File too large", "disk")  # fmt: skip
def disk_full(side, folder):
    try:
        with full_disk(((8 << 20) if side.name == "stock" else 0) + 5000):
            side.write(Source(draw(12)), folder / "a.beton")
    finally:
        if side.name == "ours" and list(folder.iterdir()):
            raise Wrong("leaves a broken file", str(list(folder.iterdir())))


@fault("the same seed, another number of workers", "not reproducible: other bytes", "the same bytes")
def same_seed(side, folder):
    digests = set()
    for workers in (1, 2):
        side.write(Source(draw(250)), folder / "a.beton", "proportion", workers)
        digests.add(hashlib.sha256((folder / "a.beton").read_bytes()).hexdigest())
    if len(digests) > 1:
        raise Wrong("not reproducible", "two files")


@fault("`smart` without a threshold, which stores no JPEG", "silent: and encodes each photo for nothing",
       "the command says so")  # fmt: skip
def smart_without_threshold(side, folder):
    (folder / "photos/c0").mkdir(parents=True)
    Image.fromarray(draw(1)[0]).save(folder / "photos/c0/a.png")
    said = side.write_folder(folder / "photos", folder / "a.beton", write_mode="smart")
    if "no photo as JPEG" not in said:
        raise Wrong("silent", said[-100:])


# Writes that are ended from outside, or meet


class Process:
    """A write in a process of its own, as if by hand: `pid`, and below() the processes that it has started."""

    def __init__(self, side, source: Source, path: Path, **how):
        self._process = get_context("fork").Process(target=_write, args=(side, source, path, how))
        self._process.start()
        self.pid = self._process.pid

    def kill(self, number: int) -> int:
        """Send a signal; the status, when it has ended."""
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode

    def below(self) -> list[int]:
        import psutil

        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]


def _write(side, source: Source, path: Path, how: dict) -> None:
    if side.name == "ours":  # what write_dataset.py does
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    side.write(source, path, **how)


def slow(folder: Path, photos: list) -> Source:
    """A source that takes its time and notes what it reads: in the files of `folder`."""
    folder.mkdir(exist_ok=True)

    def before(i):
        (folder / str(i)).touch()
        time.sleep(0.1)

    return Source(photos, before)


def begin_to_write(side, folder, count: int = 200, **how) -> Process:
    """A write of a.beton that has read some photos and has many left."""
    writing = Process(side, slow(folder / "read", draw(count)), folder / "a.beton", **how)
    while len(list((folder / "read").iterdir())) < 7:
        time.sleep(0.01)
    return writing


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; zombies have."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@fault("the system kills a process of the writer (out of memory)", "hangs: without a word",
       "the write ends, nothing under the file's name", apart=True)  # fmt: skip
def process_killed(side, folder):
    writing = begin_to_write(side, folder, count=40)
    os.kill([writing.pid, *writing.below()][-1], signal.SIGKILL)
    if writing.wait() == 0 or (folder / "a.beton").exists():
        raise Wrong("wrong samples", "a file though a process was killed")


@fault("Ctrl-C while a data set is written", "leaves a broken file: that opens, its metadata zero", "nothing is left",
       apart=True)  # fmt: skip
def ctrl_c(side, folder):
    writing = begin_to_write(side, folder)
    for pid in [writing.pid, *writing.below()]:  # as a terminal does
        os.kill(pid, signal.SIGINT)
    writing.wait()
    if (folder / "a.beton").exists():
        side.loader(folder / "a.beton")
        raise Wrong("leaves a broken file", "that opens")
    if left := [path.name for path in folder.iterdir() if "beton" in path.name]:
        raise Wrong("leaves a broken file", str(left))


@fault("SIGTERM while a data set is written (a scheduler)", "orphans: its workers go on", "ends, nothing is left",
       apart=True)  # fmt: skip
def sigterm(side, folder):
    writing = begin_to_write(side, folder)
    workers = writing.below()
    writing.kill(signal.SIGTERM)
    deadline = time.monotonic() + 2
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if any(map(is_alive, workers)):
        raise Wrong("orphans", f"{sum(map(is_alive, workers))} workers after 2 s")
    if (folder / "a.beton").exists():
        raise Wrong("leaves a broken file")


@fault("a write over an older data set is killed", "loses data: the older one is gone", "the older one is as it was",
       apart=True)  # fmt: skip
def killed_over_an_older_file(side, folder):
    photos = draw(12, seed=5)
    side.write(Source(photos), folder / "a.beton")
    begin_to_write(side, folder).kill(signal.SIGKILL)
    try:
        images, labels = read_all(side, folder / "a.beton")
    except Exception as error:
        raise Wrong("loses data", str(error)) from error
    if len(images) != len(photos) or difference(images, np.stack(photos)) > 1:
        raise Wrong("loses data", "other photos")


@fault("a killed write is started again", "starts over: reads every photo again",
       "continues where it was, with `cfg.resume=1`", apart=True)  # fmt: skip
def killed_write_again(side, folder):
    begin_to_write(side, folder, count=30, workers=1, resume=True).kill(signal.SIGKILL)
    photos = draw(30)
    side.write(slow(folder / "again", photos), folder / "a.beton", workers=1, resume=True)
    if (folder / "again/0").exists():
        raise Wrong("starts over", f"{len(list((folder / 'again').iterdir()))} of 30 photos read again")
    compare(*read_all(side, folder / "a.beton"), photos)


@fault("two processes write the same file", "silent: both end well, and the photos of one are gone",
       "the second is refused", "a.beton is being written by another process", apart=True)  # fmt: skip
def two_writers(side, folder):
    writing = begin_to_write(side, folder, count=30)
    photos = draw(12, seed=5)
    side.write(Source(photos), folder / "a.beton")
    writing.wait()
    images, labels = read_all(side, folder / "a.beton")
    for true in (photos, draw(30)):
        if len(images) == len(true) and difference(images, np.stack(true)) < 1:
            raise Wrong("silent", "one of the two")
    raise Wrong("wrong samples", "of neither of the two")
