"""Measure one loader in a process of its own; profile_loaders.py starts it.

    python -m runtime.measure '{"loader": "ffcv", "seconds": 3, "task": {...}}'   # prints one line of JSON

One epoch warms everything up (page cache, threads, compiled stages) and shows the memory; then whole
epochs are timed until `seconds` have passed.
"""

import runtime.start  # noqa: F401  must come before torch

# isort: split
import json
import threading
import time
from pathlib import Path

import psutil

from pipelines.errors import UserError
from pipelines.loaders import Task, open_loader
from runtime.config import run

_MEMORY_INTERVAL = 0.05


def _tree() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _cpu_seconds() -> float:
    """CPU time of this process and of its living children."""
    total = 0.0
    for process in _tree():
        times = process.cpu_times()
        total += times.user + times.system
    return total


def memory_bytes() -> int:
    """Memory of this process and its children, shared memory once; pages of mapped files are the system's."""
    total = 0
    for process in _tree():
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        for line in text.splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
    return total


class _PeakMemory:
    """Context in which a thread looks at the memory again and again."""

    def __enter__(self):
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(_MEMORY_INTERVAL):
            self.peak = max(self.peak, memory_bytes())

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, memory_bytes())


def measure(loader: str, task: Task, seconds: float) -> dict:
    """Figures of a loader: images_per_second, cpu_seconds_per_image, first_batch_seconds (from opening it
    on), peak_memory_bytes (above what the process had before), images (in an epoch), epochs (timed)."""
    before = memory_bytes()
    started = time.perf_counter()
    opened = open_loader(loader, task)
    with _PeakMemory() as memory:
        batches = iter(opened)
        images = len(next(batches)[1])
        first_batch = time.perf_counter() - started
        images += sum(len(labels) for _, labels in batches)
    cpu, started, epochs, timed = _cpu_seconds(), time.perf_counter(), 0, 0
    while (passed := time.perf_counter() - started) < seconds or not epochs:
        timed += sum(len(labels) for _, labels in opened)
        epochs += 1
    cpu = _cpu_seconds() - cpu
    opened.close()
    return {
        "images_per_second": timed / passed,
        "cpu_seconds_per_image": cpu / timed,
        "first_batch_seconds": first_batch,
        "peak_memory_bytes": memory.peak - before,
        "images": images,
        "epochs": epochs,
    }


def main(argv: list[str]) -> None:
    """Measure what the JSON in argv[0] says and print the figures as JSON."""
    try:
        told = json.loads(argv[0])
        loader, task, seconds = told["loader"], Task(**told["task"]), float(told["seconds"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        what = f"python -m runtime.measure cannot read what to do ({type(error).__name__}: {error})"
        raise UserError(what, "use profile_loaders.py, which runs it") from None
    print(json.dumps(measure(loader, task, seconds)), flush=True)


if __name__ == "__main__":
    run(main)
