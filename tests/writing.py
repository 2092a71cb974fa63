"""Shared parts of the tests of the writer: photos to write, the command line run in this process, payloads."""

import contextlib
import hashlib
import io
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from PIL import Image

import write_dataset
from pipelines import kernels
from pipelines.beton import JPEG, RAW, read_index
from runtime.config import run


def draw(seed: int, height: int = 60, width: int = 90) -> np.ndarray:
    """A photo (uint8, H x W x 3): smooth with some noise, so that a JPEG of it is small but not trivial."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 200 / width, y * 200 / height, (x + y) * 200 / (height + width)], -1)
    return (smooth + rng.uniform(0, 40, 3) + rng.normal(0, 5, smooth.shape)).clip(0, 255).astype(np.uint8)


def make_folder(folder: Path, sizes: list[tuple[int, int]], classes: int = 2) -> list[np.ndarray]:
    """PNG photos of these sizes (height, width), spread over the classes; returns them in the source's order."""
    photos = [draw(i, *size) for i, size in enumerate(sizes)]
    for i, photo in enumerate(photos):
        path = folder / f"class_{i * classes // len(sizes)}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path)
    return photos


def write_cli(path, data_dir=None, split="train", **cfg) -> SimpleNamespace:
    """`write_dataset.py --cfg.name=value ...` in this process; what a finished process would say of itself."""
    cfg = {"split": split, "write_path": path, "data_dir": data_dir, "num_workers": 2, **cfg}
    argv = ["write_dataset.py", *(f"--cfg.{name}={value}" for name, value in cfg.items() if value is not None)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run(write_dataset.main)
    except SystemExit as end:
        code = end.code
    finally:
        signal.signal(signal.SIGTERM, handler)
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def write_good(path, data_dir=None, **cfg) -> Path:
    """As write_cli; the write must succeed."""
    done = write_cli(path, data_dir, **cfg)
    assert done.returncode == 0, done.stderr
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def payloads(path: Path) -> list[bytes]:
    """The stored bytes of every photo."""
    index, content = read_index(path), path.read_bytes()
    starts = index.metadata["image"]["data_ptr"].tolist()
    return [content[start : start + size] for start, size in zip(starts, index.sizes.tolist(), strict=True)]


def stored_photos(path: Path) -> list[np.ndarray]:
    """Every photo: raw, decoded by Pillow, or by our kernel if stored as blocks."""
    records = read_index(path).metadata["image"]
    return [_decoded(payload, *record.tolist()[:3]) for payload, record in zip(payloads(path), records, strict=True)]


def _decoded(payload: bytes, mode: int, width: int, height: int) -> np.ndarray:
    if mode == JPEG:
        return np.asarray(Image.open(io.BytesIO(payload)))
    pixels = np.frombuffer(payload, np.uint8)
    return pixels.reshape(height, width, 3) if mode == RAW else kernels.decode(pixels, mode, height, width)


def files_in(folder: Path) -> list[str]:
    """Names of all files, those that begin with a dot too."""
    return sorted(path.name for path in folder.iterdir())
