"""Samples -> .beton, published whole or not at all, the same bytes whatever the number of threads.

Threads read, resize and encode (Pillow and OpenCV release the GIL); one thread places the payloads in
the order of the samples. So the layout depends on nothing but the source and the options.
"""

import fcntl
import hashlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from pipelines import beton
from pipelines.encode import Encoded, WriteOptions, choose_jpegs, encode, page_size
from pipelines.errors import UserError

_MODE_NAMES = {beton.JPEG: "jpg", beton.RAW: "raw", beton.BLOCKS: "blocks"}


def _encoded_in_order(source, jpegs: list, options: WriteOptions) -> Iterator[tuple[int, Encoded]]:
    """Encode all photos in threads and yield them in order, with a bounded number of chunks in memory."""
    stopped = threading.Event()

    def work(indices: range) -> list[Encoded]:
        return [_read_and_encode(source, i, jpegs[i], options) for i in indices if not stopped.is_set()]

    # Smaller chunks than asked for where the threads would not end together
    count = len(jpegs)
    size = min(options.chunk_size, max(1, count // (8 * options.num_workers)))
    chunks = iter([range(start, min(start + size, count)) for start in range(0, count, size)])
    threads = ThreadPoolExecutor(options.num_workers, thread_name_prefix="beton-writer")
    waiting: deque = deque()
    try:
        for _ in range(options.num_workers + 2):
            waiting.extend((c, threads.submit(work, c)) for c in [next(chunks, None)] if c)
        while waiting:
            indices, future = waiting.popleft()
            yield from zip(indices, future.result(), strict=True)
            waiting.extend((c, threads.submit(work, c)) for c in [next(chunks, None)] if c)
    finally:
        stopped.set()
        threads.shutdown(wait=True, cancel_futures=True)


def _read_and_encode(source, index: int, as_jpeg: bool | None, options: WriteOptions) -> Encoded:
    try:
        data = source.read(index)
    except OSError as error:
        return Encoded(error=str(error))
    return encode(data, as_jpeg, options)


class _Layout:
    """Places payloads one after the other; none crosses a page, so that FFCV can read page by page."""

    def __init__(self, file, capacity: int, page_size: int):
        self._file, self._page_size = file, page_size
        self.record = beton.metadata_type([beton.RGB_FIELD, beton.INT_FIELD])
        self.metadata = np.zeros(capacity, self.record)
        self.sizes = np.zeros(capacity, np.int64)
        self.passed = np.zeros(capacity, bool)
        self.count = 0
        head = beton.HEADER.itemsize + 2 * beton.FIELD.itemsize + self.metadata.nbytes
        self._at = -(-head // page_size) * page_size
        file.truncate(0)

    @property
    def fields(self) -> dict[str, int]:
        """Names and type ids; FFCV shall refuse a file of which it cannot decode all."""
        blocks = (self.metadata["f0"]["mode"][: self.count] == beton.BLOCKS).any()
        return {"image": beton.BLOCKS_FIELD if blocks else beton.RGB_FIELD, "label": beton.INT_FIELD}

    def place(self, encoded: Encoded, label: int, name: str, sample: int | None = None) -> None:
        """Append a sample, or replace the payload of `sample`; `name` is for the error that it is too large."""
        size = encoded.payload.nbytes
        if size > self._page_size:
            what = f"{name} takes {size} bytes, more than a page of {self._page_size}"
            raise UserError(what, "set cfg.max_resolution")
        left = self._page_size - self._at % self._page_size
        if size > left:
            self._at += left
        self._file.seek(self._at)
        self._file.write(encoded.payload)
        sample = self.count if sample is None else sample
        self.count = max(self.count, sample + 1)
        self.metadata[sample] = ((encoded.mode, encoded.width, encoded.height, self._at), label)
        self.sizes[sample], self.passed[sample] = size, encoded.passed
        self._at += size

    def finish(self) -> None:
        """Write the tables around the payloads."""
        fields = np.zeros(len(self.fields), beton.FIELD)
        for field, (name, type_id) in zip(fields, self.fields.items(), strict=True):
            field["type_id"] = type_id
            field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        header = np.array((beton.VERSION, len(fields), self._page_size, self.count, self._at), beton.HEADER)
        table = np.zeros(self.count, beton.ALLOCATION)
        table["sample_id"] = np.arange(self.count)
        table["ptr"] = self.metadata["f0"]["data_ptr"][: self.count]
        table["size"] = self.sizes[: self.count]
        self._file.seek(self._at)
        self._file.write(table.tobytes())
        self._file.seek(0)
        self._file.write(header.tobytes() + fields.tobytes() + self.metadata[: self.count].tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())


def _fill(layout: _Layout, source, options: WriteOptions, progress: Callable) -> list[str]:
    """Place every photo; returns the names of those left out."""
    jpegs = choose_jpegs(_count(source, options), options)
    kept, skipped = [], []
    with closing(_encoded_in_order(source, jpegs, options)) as photos:  # an error stops the threads at once
        for index, encoded in photos:
            name = source.name(index)
            if encoded.error is None:
                layout.place(encoded, source.label(index), name)
                kept.append(index)
            elif options.on_error == "raise":
                raise _unreadable(name, encoded.error)
            else:
                skipped.append(f"{name}: {encoded.error}")
            progress(1)
    if skipped and options.write_mode == "proportion":
        _restore_proportion(layout, source, kept, jpegs, options)
    return skipped


def _unreadable(name: str, why: str) -> UserError:
    return UserError(f"cannot read {name} ({why})", "mend it, or set cfg.on_error=skip")


def _restore_proportion(layout: _Layout, source, kept: list, jpegs: list, options: WriteOptions) -> None:
    """Photos were left out: store some of the others again, so that exactly round(p * N) are JPEGs."""
    surplus = sum(jpegs[i] for i in kept) - round(options.compress_probability * len(kept))
    for sample in [s for s, i in enumerate(kept) if jpegs[i] == (surplus > 0)][: abs(surplus)]:
        name = source.name(kept[sample])
        encoded = _read_and_encode(source, kept[sample], surplus < 0, options)
        if encoded.error is not None:
            raise _unreadable(name, encoded.error)
        layout.place(encoded, source.label(kept[sample]), name, sample)


def _count(source, options: WriteOptions) -> int:
    return len(source) if options.subset < 0 else min(options.subset, len(source))


def _check(source, path: Path, options: WriteOptions) -> None:
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}", "make it, or give another cfg.write_path")
    if path.exists() and not path.is_file():  # /dev/null would be replaced
        what = "a folder" if path.is_dir() else "not an ordinary file"
        raise UserError(f"{path} is {what}", "give cfg.write_path the name of a file")
    if _count(source, options) == 0:
        raise UserError("there are no photos to write", "check cfg.data_dir and cfg.subset")


def write(source, path: str | Path, options: WriteOptions, about: dict, progress: Callable = lambda n: None) -> dict:
    """Write a source to `path` and its card beside it; returns the card.

    `about` (what the source is) goes into the card; `progress(n)` is called as photos are stored.
    Raises UserError for a photo that cannot be read (on_error 'raise'), a full disk, and the like;
    then `path` is as it was, and no temporary file is left behind.
    """
    path = Path(path)
    _check(source, path, options)
    cv2.setNumThreads(1)  # the threads are ours
    started = time.monotonic()
    partial, card_path = beton.partial_path(path), beton.card_path(path)
    try:
        # Not truncated on opening: another process may be writing it
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "rb+") as file:
            _lock(file, partial, path)
            try:
                layout = _Layout(file, _count(source, options), page_size(options))
                skipped = _fill(layout, source, options, progress)
                if not layout.count:
                    raise UserError("none of the photos can be read", "check cfg.data_dir")
                layout.finish()
                card = _card(partial, layout, source, options, about, skipped, time.monotonic() - started)
                beton.partial_path(card_path).write_text(beton.card_text(card))
                card_path.unlink(missing_ok=True)  # never an old card beside a new file
                os.replace(partial, path)
                os.replace(beton.partial_path(card_path), card_path)
            except BaseException:
                partial.unlink(missing_ok=True)
                beton.partial_path(card_path).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})", "check the folder and its disk") from None
    return card


def _lock(file, partial: Path, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have published or removed the file between our opening and locking it
        if os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
            return
    except (BlockingIOError, FileNotFoundError):
        pass
    raise UserError(f"{path} is being written by another process", "wait for it to end") from None


def _card(partial: Path, layout: _Layout, source, options, about, skipped, seconds) -> dict:
    """What the file says of itself; README.md lists the keys."""
    images = layout.metadata["f0"][: layout.count]
    of_mode = {_MODE_NAMES[m]: images["mode"] == m for m in np.unique(images["mode"]).tolist()}
    counts = Counter(layout.metadata["f1"][: layout.count].tolist())
    with open(partial, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "card_version": beton.CARD_VERSION,
        "format_version": beton.VERSION,
        "num_samples": layout.count,
        "classes": list(source.classes),
        "class_to_idx": {name: i for i, name in enumerate(source.classes)},
        "samples_per_class": {name: counts.get(i, 0) for i, name in enumerate(source.classes)},
        "fields": {name: beton.FIELD_TYPES[t][0] for name, t in layout.fields.items()},
        "samples_per_mode": {name: int(chosen.sum()) for name, chosen in of_mode.items()},
        "bytes_per_mode": {name: int(layout.sizes[: layout.count][chosen].sum()) for name, chosen in of_mode.items()},
        "passed_through": int(layout.passed.sum()),
        "parameters": asdict(options),
        "source": about,
        "seed": options.seed,
        "skipped": skipped,
        "bytes": os.path.getsize(partial),
        "sha256": digest,
        "seconds": round(seconds, 3),
        "versions": {name: version(name) for name in ("numpy", "opencv-python", "pillow")},
    }
