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
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from pipelines import beton
from pipelines.decode import UNREADABLE, to_rgb
from pipelines.draws import sample_keys
from pipelines.errors import UserError

_MODE_NAMES = {beton.JPEG: "jpg", beton.RAW: "raw"}
_MIN_PAGE = 8 << 20
_MAX_PAGE = 1 << 31
_LONGEST_SIDE = 65535
_FIELDS = {"image": beton.RGB_FIELD, "label": beton.INT_FIELD}


@dataclass(frozen=True)
class WriteOptions:
    """How samples are stored.

    `write_mode`: 'raw' pixels, 'jpg', 'proportion' (exactly round(compress_probability * N) photos as
    JPEG, the rest raw), or 'smart' (JPEG where the raw pixels take more than `smart_threshold` bytes, as
    FFCV's code has it; without a threshold all raw). `max_resolution`: longest side in pixels, None for
    as it is. `jpeg_quality`: 1 to 100. `chunk_size`: photos that a thread takes at a time. `subset`: only
    the first so many photos, -1 for all. `on_error`: 'raise' or 'skip' for photos that cannot be read.
    """

    write_mode: str = "smart"
    max_resolution: int | None = None
    compress_probability: float = 0.5
    jpeg_quality: int = 90
    smart_threshold: int | None = None
    num_workers: int = 16
    chunk_size: int = 100
    subset: int = -1
    seed: int = 0
    on_error: str = "raise"


@dataclass
class Encoded:
    """One photo as it will be stored, or why it cannot be (`error`)."""

    payload: np.ndarray | None = None
    mode: int = 0
    width: int = 0
    height: int = 0
    error: str | None = None


def resize(pixels: np.ndarray, max_resolution: int | None) -> np.ndarray:
    """Shrink (uint8, H x W x 3) to a longest side of `max_resolution` pixels, as FFCV's writer does."""
    longest = max(pixels.shape[:2])
    if max_resolution is None or longest <= max_resolution:
        return pixels
    ratio = max_resolution / longest
    size = [max(1, int(ratio * side)) for side in (pixels.shape[1], pixels.shape[0])]
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def encode(data: bytes | np.ndarray, as_jpeg: bool | None, options: WriteOptions) -> Encoded:
    """Decode, shrink and encode one photo; `as_jpeg` None leaves the choice to its size ('smart')."""
    try:
        pixels = np.asarray(to_rgb(data)) if isinstance(data, bytes) else data
    except UNREADABLE as error:
        return Encoded(error=str(error) or type(error).__name__)
    if max(pixels.shape[:2]) > _LONGEST_SIDE and options.max_resolution is None:
        return Encoded(error=f"a side is longer than {_LONGEST_SIDE} pixels")
    pixels = resize(pixels, options.max_resolution)
    if as_jpeg is None:
        as_jpeg = options.smart_threshold is not None and pixels.nbytes > options.smart_threshold
    height, width = pixels.shape[:2]
    if not as_jpeg:
        return Encoded(np.ascontiguousarray(pixels).reshape(-1), beton.RAW, width, height)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(options.jpeg_quality)]
    good, payload = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), quality)
    if not good:
        return Encoded(error="it cannot be encoded as JPEG")
    return Encoded(payload.reshape(-1), beton.JPEG, width, height)


def choose_jpegs(count: int, options: WriteOptions) -> list[bool | None]:
    """For each photo whether it becomes a JPEG; None where its size decides ('smart')."""
    if options.write_mode == "smart":
        return [None] * count
    if options.write_mode != "proportion":
        return [options.write_mode == "jpg"] * count
    chosen = np.zeros(count, bool)
    chosen[_lottery(count, options.seed)[: round(options.compress_probability * count)]] = True
    return chosen.tolist()


def _lottery(count: int, seed: int) -> np.ndarray:
    """All photos in a random order that depends on the seed alone."""
    return np.argsort(sample_keys(seed, 0, np.arange(count)), kind="stable")


def _encoded_in_order(source, jpegs: list, options: WriteOptions) -> Iterator[tuple[int, Encoded]]:
    """Encode all photos in threads and yield them in order, with a bounded number of chunks in memory."""
    stopped = threading.Event()

    def work(indices: range) -> list[Encoded]:
        return [_read_and_encode(source, i, jpegs[i], options) for i in indices if not stopped.is_set()]

    count, size = len(jpegs), options.chunk_size
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
        self.record = beton.metadata_type(list(_FIELDS.values()))
        self.metadata = np.zeros(capacity, self.record)
        self.count = 0
        self._allocations: dict[int, tuple[int, int]] = {}
        head = beton.HEADER.itemsize + len(_FIELDS) * beton.FIELD.itemsize + self.metadata.nbytes
        self._at = -(-head // page_size) * page_size
        file.truncate(0)

    def place(self, encoded: Encoded, label: int, sample: int | None = None) -> None:
        """Append a sample, or replace the payload of `sample`."""
        size = encoded.payload.nbytes
        left = self._page_size - self._at % self._page_size
        if size > left:
            self._at += left
        self._file.seek(self._at)
        self._file.write(encoded.payload)
        sample = self.count if sample is None else sample
        self.count = max(self.count, sample + 1)
        self.metadata[sample] = ((encoded.mode, encoded.width, encoded.height, self._at), label)
        self._allocations[sample] = (self._at, size)
        self._at += size

    def finish(self) -> None:
        """Write the tables around the payloads."""
        table = np.array([(s, *self._allocations[s]) for s in range(self.count)], beton.ALLOCATION)
        header = np.array((beton.VERSION, len(_FIELDS), self._page_size, self.count, self._at), beton.HEADER)
        fields = np.zeros(len(_FIELDS), beton.FIELD)
        for field, (name, type_id) in zip(fields, _FIELDS.items(), strict=True):
            field["type_id"] = type_id
            field["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        self._file.seek(self._at)
        self._file.write(table.tobytes())
        self._file.seek(0)
        self._file.write(header.tobytes() + fields.tobytes() + self.metadata[: self.count].tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())


def _page_size(options: WriteOptions) -> int:
    """A power of two in which the largest raw photo fits; FFCV's default of 8 MiB where that is enough."""
    largest = 3 * (options.max_resolution or 0) ** 2
    return min(_MAX_PAGE, max(_MIN_PAGE, 1 << max(largest - 1, 1).bit_length()))


def _fill(layout: _Layout, source, options: WriteOptions, page_size: int, progress: Callable) -> list[str]:
    """Place every photo; returns the names of those left out."""
    jpegs = choose_jpegs(_count(source, options), options)
    kept, skipped = [], []
    with closing(_encoded_in_order(source, jpegs, options)) as photos:  # an error stops the threads at once
        for index, encoded in photos:
            name = source.name(index)
            if encoded.error is None:
                _check_size(encoded, name, page_size)
                layout.place(encoded, source.label(index))
                kept.append(index)
            elif options.on_error == "raise":
                raise _unreadable(name, encoded.error)
            else:
                skipped.append(f"{name}: {encoded.error}")
            progress(1)
    if skipped and options.write_mode == "proportion":
        _restore_proportion(layout, source, kept, jpegs, options, page_size)
    return skipped


def _unreadable(name: str, why: str) -> UserError:
    return UserError(f"cannot read {name} ({why})", "mend it, or set cfg.on_error=skip")


def _check_size(encoded: Encoded, name: str, page_size: int) -> None:
    size = encoded.payload.nbytes
    if size > page_size:
        raise UserError(f"{name} takes {size} bytes, more than a page of {page_size}", "set cfg.max_resolution")


def _restore_proportion(layout: _Layout, source, kept: list, jpegs: list, options: WriteOptions, page_size: int):
    """Photos were left out: store some of the others again, so that exactly round(p * N) are JPEGs."""
    surplus = sum(jpegs[i] for i in kept) - round(options.compress_probability * len(kept))
    for sample in [s for s, i in enumerate(kept) if jpegs[i] == (surplus > 0)][: abs(surplus)]:
        encoded = _read_and_encode(source, kept[sample], surplus < 0, options)
        if encoded.error is not None:
            raise _unreadable(source.name(kept[sample]), encoded.error)
        _check_size(encoded, source.name(kept[sample]), page_size)
        layout.place(encoded, source.label(kept[sample]), sample)


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
    page_size = _page_size(options)
    try:
        # Not truncated on opening: another process may be writing it
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o666), "rb+") as file:
            _lock(file, partial, path)
            try:
                layout = _Layout(file, _count(source, options), page_size)
                skipped = _fill(layout, source, options, page_size, progress)
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
    sizes = np.array([layout._allocations[s][1] for s in range(layout.count)])
    bytes_of = {_MODE_NAMES[m]: int(sizes[images["mode"] == m].sum()) for m in np.unique(images["mode"]).tolist()}
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
        "fields": {name: beton.FIELD_TYPES[t][0] for name, t in _FIELDS.items()},
        "samples_per_mode": {
            _MODE_NAMES[m]: int((images["mode"] == m).sum()) for m in np.unique(images["mode"]).tolist()
        },
        "bytes_per_mode": bytes_of,
        "parameters": asdict(options),
        "source": about,
        "seed": options.seed,
        "skipped": skipped,
        "bytes": os.path.getsize(partial),
        "sha256": digest,
        "seconds": round(seconds, 3),
        "versions": {name: version(name) for name in ("numpy", "opencv-python", "pillow")},
    }
