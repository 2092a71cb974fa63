"""Which storage mode and size fit a machine and a model: `profile_loaders.py plan --plan.photos=FOLDER`.

A sample of the photos is written in each mode and size, and read by the loader with the stages of the training. From
that and from the sizes of many more photos comes what the whole set would take:

- bytes: exact for modes whose payloads depend on height and width alone. Of JPEGs a linear fit over the sample, of the
  payload on the pixels that are stored and on the bytes of the original file, applied to the means of all (Cochran,
  Sampling Techniques, 7.3: the regression estimator).
- images per second: measured where the number of cores is this machine's. For another it is proportional to the cores:
  images per CPU second of one thread, measured here. So it holds for cores like these, and until the memory's bandwidth
  is used up.
- seconds per epoch: the slowest of loader, model and, where the set does not fit into memory, disk.
"""

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from beton import system
from beton.errors import UserError
from beton.format.fields.image import Image
from beton.format.fields.int import Int
from beton.format.file import BetonFile
from beton.format.modes import MODES, by_code
from beton.format.photo_files import UNREADABLE
from beton.loading.loader import Loader
from beton.rng import permutation
from beton.sources.imagefolder import open_source
from beton.sources.subset import Subset
from beton.writing.options import WriteOptions
from beton.writing.writer import write
from runtime.verdict import Alternative

_MOST_LOOKED_AT = 4000  # photos of which the size is looked up
_OF_MEMORY = 0.8  # what of a machine's memory a data set may fill: the rest is for batches, the model and the system
_HEADROOM = 1.15  # a loader that is so much faster than the model is fast enough


@dataclass(frozen=True)
class Machine:
    """Cores, memory (bytes) and what reading from its disk gives (bytes per second, None: unknown)."""

    cores: int
    memory: float
    disk: float | None


@dataclass(frozen=True)
class Option:
    """A mode and a size (longest side in pixels, None: as they are), and what that means for all photos.

    `images_per_second` of the loader alone, on all cores; `write_seconds` on all cores; `epoch_seconds` with the model,
    `limit` what it waits for: 'loader', 'model' or 'disk'.
    """

    mode: str
    size: int | None
    quality: int
    bytes: float
    images_per_second: float
    write_seconds: float
    fits: bool
    epoch_seconds: float
    limit: str

    def line(self, photos: str) -> str:
        """The command that writes it."""
        ratio = {"jpg": "1.0"}.get(self.mode, "0.0")
        more = " --cfg.rest=blocks" if self.mode == "blocks" else ""
        size = self.size or 65535
        return f"IMAGENET_DIR={photos} WRITE_DIR=betons ./write_imagenet.sh {size} {ratio} {self.quality}{more}"


class Photos:
    """A folder of photos: a sample of them to be written, and the sizes of many."""

    def __init__(self, folder: str, sample: int, seed: int = 0):
        self.source = open_source(folder, "train", seed=0, count=None)
        order = permutation(len(self.source), seed).tolist()
        self.count = len(self.source)
        self.sample = Subset(self.source, sorted(order[:sample]))
        self.heights, self.widths, self.file_bytes = self._look(folder, order[:_MOST_LOOKED_AT])

    def _look(self, folder: str, chosen: list[int]) -> tuple[np.ndarray, ...]:
        found = []
        for i in chosen:
            path = Path(folder) / self.source.stored_name(i)
            try:
                with Pillow.open(path) as photo:
                    found.append((photo.height, photo.width, path.stat().st_size))
            except UNREADABLE:
                continue  # the write will name it
        if not found:
            raise UserError(f"no photo in {folder} can be read", "give a folder of photos")
        return tuple(np.array(column, np.float64) for column in zip(*found, strict=True))

    def stored_sizes(self, size: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Heights and widths (int64) that the photos looked at have once they are stored."""
        longest = np.maximum(self.heights, self.widths)
        ratio = np.minimum(1.0, (size or np.inf) / longest)
        return tuple(np.maximum(1, (ratio * side).astype(np.int64)) for side in (self.heights, self.widths))


@dataclass(frozen=True)
class Sampled:
    """What writing and reading a sample has shown: bytes of an image, encode seconds of a core, images per second here,
    and per CPU second."""

    bytes_each: float
    encode_seconds: float
    images_per_second: float
    per_core: float


def measure(photos: Photos, mode: str, size: int | None, quality: int, stages: str, seconds: float) -> Sampled:
    """Write the sample in a mode and size into a temporary folder and read it for so many seconds."""
    folder = Path(tempfile.mkdtemp(prefix="plan-"))
    try:
        path = folder / "sample.beton"
        fields = {"image": Image(write_mode=mode, max_resolution=size, jpeg_quality=quality), "label": Int()}
        options = WriteOptions(num_workers=system.cores(), on_error="skip")
        cpu = time.process_time()
        write(photos.sample, path, fields, options, {"name": "plan"}, lambda n: None, lambda text: None)
        cpu = time.process_time() - cpu
        with BetonFile(path) as file:
            count, column = len(file), file.columns["image"]
            payloads, records = column.sizes.astype(np.float64), column.records.copy()
            beside = (os.path.getsize(path) - payloads.sum()) / count
        originals = _original_bytes(photos, count)
        each = _bytes_each(photos, mode, size, payloads, records, originals) + beside
        rate, per_core = _read(path, stages, seconds)
        return Sampled(float(each), cpu / count, rate, per_core)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _original_bytes(photos: Photos, count: int) -> np.ndarray | None:
    """Bytes of the original files of the sample; None where some of it could not be written."""
    sample = [len(photos.sample.read(i)[0]) for i in range(len(photos.sample))]
    return np.array(sample, np.float64) if len(sample) == count else None


def _bytes_each(photos: Photos, mode: str, size, payloads, records, originals) -> float:
    """Mean bytes of a payload over all photos."""
    heights, widths = photos.stored_sizes(size)
    exact = MODES.get(mode).size(heights, widths)
    if exact is not None:
        return float(exact.mean())
    pixels = records["height"].astype(np.float64) * records["width"]
    of_sample = [np.ones(len(pixels)), pixels] + ([] if originals is None else [originals])
    of_all = [1.0, float((heights * widths).mean())] + ([] if originals is None else [float(photos.file_bytes.mean())])
    weights = np.linalg.lstsq(np.stack(of_sample, axis=1), payloads, rcond=None)[0]
    return float(weights @ of_all)


def _read(path: Path, stages: str, seconds: float) -> tuple[float, float]:
    """Images per second of the loader on all cores, and per CPU second: medians over epochs."""
    with Loader(path, 64, image=stages, columns=("image", "label")) as loader:
        sum(len(labels) for _, labels in loader.batches(0))  # compiles, and touches the file
        rates, ends, epoch = [], time.perf_counter() + seconds, 0
        while time.perf_counter() < ends or epoch < 2:
            epoch += 1
            started, cpu, images = time.perf_counter(), time.process_time(), 0
            for _, labels in loader.batches(epoch):
                images += len(labels)
            rates.append((images / (time.perf_counter() - started), images / (time.process_time() - cpu)))
    return tuple(statistics.median(column) for column in zip(*rates, strict=True))


def loader_parts(dataset: str, stages: str, workers: int, batch_size: int) -> dict[str, float]:
    """Seconds of our loader's threads for an image by part (beton.loading.times), of an epoch that is not timed."""
    with Loader(dataset, batch_size, workers=workers, image=stages, columns=("image",), timed=True) as loader:
        for epoch in range(2):  # the first touches fresh memory
            loader.times.clear()
            for _ in loader.batches(epoch):
                pass
        return loader.times.per_sample()


class _Stored:
    """Some samples of an open .beton as a source of pixels and labels."""

    fields = {"image": "image", "label": "int"}

    def __init__(self, file: BetonFile, count: int):
        self._file, self.classes = file, file.classes
        self._chosen = permutation(len(file), 0)[:count].tolist()

    def __len__(self) -> int:
        return len(self._chosen)

    def name(self, number: int) -> str:
        """For messages."""
        return f"sample {self._chosen[number]}"

    identity = name

    def read(self, number: int) -> tuple:
        """Pixels (uint8, H x W x 3) and the label."""
        sample = self._file[self._chosen[number]]
        return sample.image, int(sample.label)


def alternatives(dataset: str, stages: str, count: int = 128, seconds: float = 1.0) -> list[Alternative]:
    """Other storage modes, and three quarters of the size, for a .beton: how long each takes to load beside the present
    one, measured on some of its samples."""
    rates = {}
    with BetonFile(dataset) as file:
        records, samples = file.columns["image"].records, _Stored(file, count)
        present = {mode.code: mode.name for mode in by_code().values()}[int(np.median(records["mode"]))]
        size = int(np.maximum(records["height"], records["width"]).max())
        for mode, side in ((present, size), ("blocks", size), ("raw", size), (present, size * 3 // 4)):
            if (mode, side) not in rates:
                rates[mode, side] = _rate_as(samples, mode, side, stages, seconds)
    base_rate, base_bytes = rates.pop((present, size))
    found = []
    for (mode, side), (rate, size_now) in rates.items():
        what = f"write it as {mode}" if side == size else f"write it with at most {side} px"
        text = f"{what} (loads {rate / base_rate:.2g} times as many images/s, takes {size_now / base_bytes:.2g} times"
        found.append(Alternative(f"{text} the bytes)", base_rate / rate, 2))
    return found


def _rate_as(samples: _Stored, mode: str, size: int, stages: str, seconds: float) -> tuple[float, int]:
    """Images per second of samples that are stored in a mode and size, and their bytes."""
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        path = Path(folder) / "sample.beton"
        fields = {"image": Image(write_mode=mode, max_resolution=size), "label": Int()}
        write(samples, path, fields, WriteOptions(system.cores()), {}, lambda n: None, lambda text: None)
        return _read(path, stages, seconds)[0], os.path.getsize(path)


def option(
    photos: Photos, sampled: Sampled, mode: str, size: int | None, quality: int, machine: Machine, rate: float | None
) -> Option:
    """What a mode and size mean on a machine for a model that takes `rate` images per second (None: any number)."""
    total = sampled.bytes_each * photos.count
    loads = sampled.images_per_second if machine.cores == system.cores() else sampled.per_core * machine.cores
    limits = {"loader": loads, "model": rate or np.inf}
    fits = total <= _OF_MEMORY * machine.memory
    if not fits and machine.disk:
        limits["disk"] = machine.disk / sampled.bytes_each
    limit = min(limits, key=limits.__getitem__)
    writing = sampled.encode_seconds * photos.count / machine.cores
    seconds = photos.count / limits[limit]
    return Option(mode, size, quality, total, loads, writing, fits, seconds, limit)


def recommended(options: list[Option], rate: float | None) -> Option:
    """Of those that fit into memory and load faster than the model takes: the largest size, then the fewest bytes.

    Where none is fast enough, or where no rate is known, the fastest of the largest size that fits; where none
    fits, the one of which an epoch takes the least, of these the largest.
    """
    fitting = [each for each in options if each.fits]
    if not fitting:
        return min(options, key=lambda each: (round(each.epoch_seconds, 3), -(each.size or 65535), each.bytes))
    enough = [each for each in fitting if rate and each.images_per_second >= _HEADROOM * rate]
    if enough:
        return max(enough, key=lambda each: (each.size or 65535, -each.bytes))
    if rate:
        return max(fitting, key=lambda each: each.images_per_second)
    largest = max(each.size or 65535 for each in fitting)
    return max((e for e in fitting if (e.size or 65535) == largest), key=lambda each: each.images_per_second)


def disk_rate(folder: Path, size: int = 256 << 20) -> float | None:
    """Bytes per second of reading a file that is not in the page cache; None where it cannot be put out of it."""
    if not hasattr(os, "posix_fadvise"):
        return None
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        block = os.urandom(1 << 20)
        for _ in range(size >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        with open(file.name, "rb", buffering=0) as again:
            while again.read(8 << 20):
                pass
        return size / (time.perf_counter() - started)


def as_json(photos: Photos, options: list[Option], best: Option, machine: Machine, rate: float | None) -> dict:
    """The plan as it is written to plan.json."""
    return {
        "photos": photos.count,
        "sample": len(photos.sample),
        "machine": asdict(machine),
        "rate": rate,
        "options": [asdict(each) for each in options],
        "recommended": asdict(best),
    }
