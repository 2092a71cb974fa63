"""Helpers of the tests of stages and loaders: time limits, fingerprints, photos, p-values."""

import ctypes
import hashlib
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import torch

from pipelines import beton
from pipelines.loaders import Task
from pipelines.writer import WriteOptions, write

ROOT = Path(__file__).resolve().parent.parent
STAGES = "rrc(24, scale=(0.25, 1))|flip|normalize"


def task(dataset, **changes) -> Task:
    """A small training task."""
    given = {"stages": STAGES, "batch_size": 8, "workers": 2}
    return Task(str(dataset), **(given | changes))


def area_weights(length: int, size: int) -> np.ndarray:
    """What share of each of `length` pixels lies in each of `size` equal parts (size x length, rows sum to 1)."""
    edges = np.arange(size + 1)[:, None] * length / size
    low, high = np.maximum(edges[:-1], np.arange(length)), np.minimum(edges[1:], np.arange(1, length + 1))
    return np.maximum(high - low, 0) * size / length


def turbo_decode(payload: np.ndarray, height: int, width: int, fast: bool = False) -> np.ndarray:
    """A whole JPEG by libjpeg-turbo: exactly, or (`fast`) with the flags that FFCV uses."""
    library = ctypes.CDLL("libturbojpeg.so.0")
    library.tjInitDecompress.restype = ctypes.c_void_p
    decoder, pixels = ctypes.c_void_p(library.tjInitDecompress()), np.empty((height, width, 3), np.uint8)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (payload, pixels)]
    flags = 2048 if fast else 4096
    code = library.tjDecompress2(
        decoder, pointers[0], ctypes.c_ulong(payload.size), pointers[1], width, 0, height, 0, flags
    )
    library.tjDestroy(decoder)
    assert code == 0
    return pixels


def within(seconds: float, function):
    """The function's result or exception; fails when it takes longer than `seconds`."""
    outcome = {}

    def run():
        try:
            outcome["result"] = function()
        except Exception as error:  # noqa: BLE001  raised below, in the test's own thread
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still running after {seconds} s"
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def run_code(code: str, *arguments, timeout: float = 120) -> str:
    """What Python code prints in a process of its own that can import the repository and the tests."""
    start = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests')]!r}\n"
    command = [sys.executable, "-c", start + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def labels_of(batches) -> list[int]:
    """All labels of an epoch, in order."""
    return [int(label) for _, labels in batches for label in labels]


def fingerprint(batches) -> str:
    """SHA-256 of every bit of an epoch's batches."""
    digest = hashlib.sha256()
    for images, labels in batches:
        bits = images.permute(0, 2, 3, 1).contiguous().view(torch.uint8)
        digest.update(f"{tuple(images.shape)} {images.dtype} {labels.tolist()}".encode())
        digest.update(bits.numpy().tobytes())
    return digest.hexdigest()


def draw_photos(count: int, low: int, high: int, seed: int = 0) -> list[np.ndarray]:
    """Smooth random photos (RGB) with sides from `low` to `high` pixels."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(low, high, (count, 2), endpoint=True).tolist()
    return [cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (w, h)) for h, w in sizes]


class Photos:
    """A source (see pipelines/sources) of the given photos, each of a class of its own."""

    def __init__(self, photos: list):
        self.photos, self.classes = photos, [f"c{i:03d}" for i in range(len(photos))]

    def __len__(self):
        return len(self.photos)

    def label(self, i):
        return i

    def name(self, i):
        return f"photo {i}"

    def read(self, i):
        return self.photos[i]


def write_beton(path: Path, photos: list, mode: str = "raw") -> Path:
    """A .beton of photos whose labels are their numbers."""
    write(Photos(photos), path, WriteOptions(mode, num_workers=2), {})
    return path


def damage(path, samples, target):
    """A copy of a .beton in which these samples are zeros, with its card."""
    shutil.copy(path, target)
    shutil.copy(beton.card_path(path), beton.card_path(target))
    index = beton.read_index(target)
    for sample in samples:
        start, size = int(index.metadata["image"]["data_ptr"][sample]), int(index.sizes[sample])
        np.memmap(target, np.uint8, "r+", start, size)[:] = 0
    return target


def two_sample_p(a, b) -> float:
    """p-value of the Kolmogorov-Smirnov test that two samples have one distribution (asymptotic)."""
    a, b = np.sort(a), np.sort(b)
    both = np.concatenate([a, b])
    gap = np.searchsorted(a, both, "right") / len(a) - np.searchsorted(b, both, "right") / len(b)
    return _kolmogorov(np.abs(gap).max() * np.sqrt(len(a) * len(b) / (len(a) + len(b))))


def uniform_p(values) -> float:
    """p-value of the Kolmogorov-Smirnov test that values are uniform in [0, 1) (asymptotic)."""
    values, n = np.sort(values), len(values)
    steps = np.arange(n + 1) / n
    return _kolmogorov(max((steps[1:] - values).max(), (values - steps[:-1]).max()) * np.sqrt(n))


def counts_p(*counts) -> float:
    """p-value of the chi-square test that rows of counts have one distribution (asymptotic)."""
    table = np.array(counts, dtype=np.float64)
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    statistic = ((table - expected) ** 2 / expected).sum()
    return torch.special.gammaincc(torch.tensor(freedom / 2), torch.tensor(statistic / 2)).item()


def _kolmogorov(x: float) -> float:
    if x < 0.2:
        return 1.0
    k = np.arange(1, 101)
    return float(np.clip(2 * np.sum((-1.0) ** (k - 1) * np.exp(-2 * (k * x) ** 2)), 0, 1))
