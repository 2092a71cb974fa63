"""A measuring process: one loader that stays open through the rounds and is idle between them.

    python -m runtime.profiling.measure beton     # requests on stdin, answers on stdout: a line of JSON each

runtime/profiling/process.py starts it and asks: `make` a data set, `check` a batch, `open`, `measure`. So the start,
the imports and what a loader compiles are paid once, and told apart from its speed. What else the loader prints goes to
stderr. An answer of {"error": what, "to_do": text} is a UserError; after the last request the process ends.
"""

import ctypes
import gc
import json
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

import psutil

from beton.errors import UserError
from runtime import preflight
from runtime.config import run

_MEMORY_INTERVAL = 0.05  # seconds
CHECKED = 512  # samples whose labels are compared
COMPARED = 64  # samples whose pixels are compared


class Measured:
    """The loader of one name, and what can be asked of it: the public methods."""

    def __init__(self, loader: str):
        self.loader, self.pipeline, self._task, self._epoch = loader, None, None, 0

    def ready(self) -> dict:
        """Nothing: it has started."""
        return {}

    def make(self, photos: str, folder: str) -> dict:
        """Make the loader's own data set of a photo folder."""
        from runtime.profiling.datasets import make

        return {"dataset": str(make(self.loader, Path(photos), Path(folder)))}

    def check(self, task: dict, path: str) -> dict:
        """The first images and labels in order to `path` (.npz, see runtime/profiling/agreement.py)."""
        from runtime.profiling.agreement import save_sample

        task = {**task, "shuffle": False, "drop_last": False, "batch_size": COMPARED}
        with _open(self.loader, task) as pipeline:
            save_sample(pipeline, CHECKED, Path(path))
        return {}

    def open(self, task: dict) -> dict:
        """Open it and read an epoch, which warms up the page cache, threads and compiled stages.

        first_batch_seconds (from opening it on), warm_up_seconds, peak_memory_bytes (above what the process had
        before), images (in an epoch).
        """
        before, started = memory_bytes(), time.perf_counter()
        self._task, self._epoch = task, 0
        self.pipeline = _open(self.loader, task)
        with _PeakMemory() as memory:
            batches = self.pipeline.batches(0)
            images = len(next(batches)[1])
            first_batch = time.perf_counter() - started
            images += sum(len(labels) for _, labels in batches)
        warm_up = time.perf_counter() - started
        self._rest()
        return {
            "first_batch_seconds": first_batch,
            "warm_up_seconds": warm_up,
            "peak_memory_bytes": memory.peak - before,
            "images": images,
        }

    def measure(self, seconds: float, protocol: str = "load", cold: list[str] | None = None) -> dict:
        """Read whole epochs until `seconds` have passed.

        `cold`: files and folders that leave the page cache before each epoch, for which the loader is opened anew.
        images_per_second, cpu_seconds_per_image (of all its processes), epochs, others_cpu (cores that were busy
        with something else).
        """
        passed = cpu = others = 0.0
        epochs = images = 0
        while passed < seconds or not epochs:
            if cold:
                self.pipeline.close()
                leave_page_cache(cold)
                self.pipeline = _open(self.loader, self._task)
            elif not epochs and self.pipeline.worker_kind == "processes":
                self._wake()
            self._epoch, epochs = self._epoch + 1, epochs + 1
            before, busy, started = _cpu_seconds(), _busy_seconds(), time.perf_counter()
            images += _CONSUME[protocol](self.pipeline, self._epoch)
            passed += time.perf_counter() - started
            used = _cpu_seconds() - before
            cpu, others = cpu + used, others + _busy_seconds() - busy - used
        self._rest()
        return {
            "images_per_second": images / passed,
            "cpu_seconds_per_image": cpu / images,
            "epochs": epochs,
            "others_cpu": max(0.0, others / passed),
        }

    def _wake(self) -> None:
        """A batch that is not timed: worker processes start."""
        batches = self.pipeline.batches(0)
        next(batches)
        batches.close()

    def _rest(self) -> None:
        """Give back memory until the next round: two dozen loaders that wait would else fill 20 GB."""
        if self.pipeline.worker_kind == "processes":
            self.pipeline.release()
        gc.collect()
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)


def _open(loader: str, task: dict):
    from beton.loading.task import Task
    from pipelines import open_pipeline

    return open_pipeline(loader, Task(**task))


def _load(pipeline, epoch: int) -> int:
    """Batches on the host, nothing done with them."""
    return sum(len(labels) for _, labels in pipeline.batches(epoch))


def _feed(pipeline, epoch: int) -> int:
    """Batches on the device, each read there once; the device is waited for at the end of the epoch."""
    import torch

    images, greatest = 0, None
    for batch, labels in pipeline.batches(epoch):
        images, greatest = images + len(labels), batch.amax()
    if greatest is not None and greatest.is_cuda:
        torch.cuda.synchronize(greatest.device)
    return images


_CONSUME = {"load": _load, "feed": _feed}


def leave_page_cache(paths: list[str]) -> None:
    """Have the kernel forget what it holds of these files, and of those in these folders."""
    for path in map(Path, paths):
        for file in [path] if path.is_file() else filter(Path.is_file, path.rglob("*")):
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)  # what is not written yet would stay
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def memory_bytes() -> int:
    """Memory of this process and its children; shared memory counts once, mapped files do not count."""
    total = 0
    for process in _processes():
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        for line in text.splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
    return total


class _PeakMemory:
    """Context in which a thread samples the memory; afterwards `peak` is the greatest value in bytes."""

    def __enter__(self):
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._stop.wait(_MEMORY_INTERVAL):
            self.peak = max(self.peak, memory_bytes())

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, memory_bytes())


def _cpu_seconds() -> float:
    """CPU time of this process and its children, those that have ended too."""
    total = 0.0
    for process in _processes():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    own = psutil.Process().cpu_times()
    return total + own.children_user + own.children_system


def _busy_seconds() -> float:
    """CPU time that all processes of the machine have used, or that another machine took from it."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + getattr(times, "steal", 0.0)


def _processes() -> list[psutil.Process]:
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def main(argv: list[str]) -> None:
    """Answer the requests for the loader argv[0]."""
    preflight.check()
    import torch  # noqa: F401  before the clock and the memory: what every training process has already

    from pipelines import get

    if len(argv) != 1:
        raise UserError("python -m runtime.profiling.measure wants one loader", "use profile_loaders.py, which runs it")
    get(argv[0])
    measured = Measured(argv[0])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a loader prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(measured, request.pop("do"))(**request)
        except UserError as error:
            answer = {"error": error.what, "to_do": error.to_do}
        except Exception as error:  # noqa: BLE001  of a loader that is not ours; the others are measured all the same
            traceback.print_exc()
            answer = {"error": f"it failed ({type(error).__name__}: {error})", "to_do": "see the message above"}
        print(json.dumps(answer), file=answers, flush=True)
    if measured.pipeline is not None:
        measured.pipeline.close()


if __name__ == "__main__":
    run(main)
