"""Measure one pipeline in a process of its own; runtime/profiling/rounds.py starts it.

    python -m runtime.profiling.measure '{"loader": "beton", "seconds": 3, "task": {...}}'   # prints one line of JSON

The first epoch warms up (page cache, threads, compiled stages) and gives the peak memory; then whole epochs are timed
until `seconds` have passed. A UserError is printed as {"error": text}.
"""

import json
import threading
import time
from pathlib import Path

import psutil

from beton.errors import UserError
from runtime import preflight
from runtime.config import run

_MEMORY_INTERVAL = 0.05  # seconds


def measure(loader: str, task, seconds: float) -> dict:
    """Figures of a pipeline for a beton.loading.task.Task.

    images_per_second, cpu_seconds_per_image, first_batch_seconds (from opening it on), peak_memory_bytes (above what
    the process had before), images (in an epoch), epochs (timed).
    """
    from pipelines import open_pipeline  # imports torch, after preflight.check()

    before = memory_bytes()
    started = time.perf_counter()
    with open_pipeline(loader, task) as pipeline:
        with _PeakMemory() as memory:
            batches = pipeline.batches(0)
            images = len(next(batches)[1])
            first_batch = time.perf_counter() - started
            images += sum(len(labels) for _, labels in batches)
        cpu, started, epochs, timed = _cpu_seconds(), time.perf_counter(), 0, 0
        while (passed := time.perf_counter() - started) < seconds or not epochs:
            epochs += 1
            timed += sum(len(labels) for _, labels in pipeline.batches(epochs))
        cpu = _cpu_seconds() - cpu
    return {
        "images_per_second": timed / passed,
        "cpu_seconds_per_image": cpu / timed,
        "first_batch_seconds": first_batch,
        "peak_memory_bytes": memory.peak - before,
        "images": images,
        "epochs": epochs,
    }


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
    """CPU time of this process and its living children."""
    times = [process.cpu_times() for process in _processes()]
    return sum(t.user + t.system for t in times)


def _processes() -> list[psutil.Process]:
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def main(argv: list[str]) -> None:
    """Measure what the JSON in argv[0] says and print the figures as JSON."""
    preflight.check()
    import torch  # noqa: F401  before the clock and the memory: what every training process has already

    from beton.loading.task import Task

    try:
        request = json.loads(argv[0])
        loader, task, seconds = request["loader"], Task(**request["task"]), float(request["seconds"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        what = f"python -m runtime.profiling.measure cannot read its argument ({type(error).__name__}: {error})"
        raise UserError(what, "use profile_loaders.py, which runs it") from None
    try:
        figures = measure(loader, task, seconds)
    except UserError as error:
        figures = {"error": str(error)}
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    run(main)
