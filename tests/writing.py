"""Shared parts of the tests of the writer: photos to write, the command line run in this process, payloads."""

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
from conftest import ENVIRONMENT, ROOT
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


_SERVER = """
import json, os, sys
sys.path.append("tests")
import warmed, write_dataset
import pipelines.sources.imagefolder
from runtime.config import run

for line in sys.stdin:
    argv, before, out, err = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.argv, code = ["write_dataset.py", *argv], 0
        exec(before)
        try:
            run(write_dataset.main)
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        os._exit(code)
    print(pid, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Writes:
    """write_dataset.py as processes of their own, one at a time, that need not import what they need again.

    `folder` is for what they print.
    """

    def __init__(self, folder: Path):
        self._out, self._err = folder / "stdout", folder / "stderr"
        self._running = None
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], cwd=ROOT, env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True
        )

    def start(self, path, data_dir=None, split="train", before: str = "", **cfg) -> None:
        """Begin a write. Python code `before` runs first in the process."""
        if self._running is not None:  # the test before this one failed
            self.kill(signal.SIGKILL)
        cfg = {"split": split, "write_path": path, "data_dir": data_dir, "num_workers": 2, **cfg}
        argv = [f"--cfg.{name}={value}" for name, value in cfg.items() if value is not None]
        self._send(json.dumps([argv, before, str(self._out), str(self._err)]))
        self._running = self._answer()

    def kill(self, number: int) -> SimpleNamespace:
        """Send a signal (to what may have ended already) and wait()."""
        os.kill(self._running, number)
        return self.wait()

    def wait(self) -> SimpleNamespace:
        """What the process says of itself at its end; a negative status is the signal that ended it."""
        self._send("wait")
        code, self._running = self._answer(), None
        return SimpleNamespace(returncode=code, stdout=self._out.read_text(), stderr=self._err.read_text())

    def run(self, *args, **cfg) -> SimpleNamespace:
        """start() and wait()."""
        self.start(*args, **cfg)
        return self.wait()

    def close(self) -> None:
        """End the server, and what still runs."""
        if self._running is not None:
            self.kill(signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait(timeout=20)

    def _send(self, line: str) -> None:
        print(line, file=self._server.stdin, flush=True)

    def _answer(self) -> int:
        return int(self._server.stdout.readline())
