"""Where the time of an epoch goes. Seconds; on a CUDA device they are the GPU's.

An epoch is cut by marks: each gives what has passed since the one before to a part. So the parts add up to the whole,
whatever is in between. On a CPU a mark is a look at the clock. On CUDA it is an event in the stream that trains:
the host runs ahead of the GPU, and while it waits for data the GPU may well be busy. Events are read when they have
passed, so no mark waits for the GPU.
"""

import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator

import torch

from runtime.training import cpu_threads

# Part -> its name in the log. start: until the first batch arrives (threads or processes, without compiling); wait: for
# data; transfer: for the copy to the device; compute: forward and backward; other: checkpoints, the progress bar, ...
PARTS = {
    "start": "first_batch_time",
    "wait": "wait_time",
    "transfer": "transfer_time",
    "compute": "compute_time",
    "optimizer": "optimizer_time",
    "compile": "compile_time",
    "other": "other_time",
}
_MANY = 64  # events that are recorded before the first is asked whether it has passed


class HostMarks:
    """Marks by the host's clock."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def mark(self, part: str, compiled: float = 0.0) -> None:
        """Give what has passed to `part`, but `compiled` seconds of it to compile."""
        now = time.perf_counter()
        _give(self.seconds, part, now - self._last, compiled)
        self._last = now

    def finish(self) -> None:
        """All marks are counted already."""


class CudaMarks:
    """Marks by events of a CUDA device; `event()` makes one."""

    def __init__(self, event: Callable = lambda: torch.cuda.Event(enable_timing=True)):
        self.seconds: dict[str, float] = defaultdict(float)
        self._make, self._free, self._pending = event, [], deque()
        self._last = self._recorded()

    def mark(self, part: str, compiled: float = 0.0) -> None:
        """As HostMarks has it."""
        self._pending.append((part, compiled, self._recorded()))
        while len(self._pending) > _MANY and self._pending[0][-1].query():
            self._count()

    def finish(self) -> None:
        """Count the rest; the device must have been synchronised."""
        while self._pending:
            self._count()

    def _recorded(self):
        event = self._free.pop() if self._free else self._make()
        event.record()
        return event

    def _count(self) -> None:
        part, compiled, event = self._pending.popleft()
        _give(self.seconds, part, self._last.elapsed_time(event) / 1e3, compiled)
        self._free.append(self._last)
        self._last = event


def _give(seconds: dict[str, float], part: str, passed: float, compiled: float) -> None:
    compiled = min(compiled, passed)
    seconds[part] += passed - compiled
    seconds["compile"] += compiled


class Compiling:
    """Counts the seconds in which numba or torch.compile compiles, in whatever thread."""

    def __init__(self):
        self._lock, self._depth, self._started, self._total, self._watched = threading.Lock(), 0, 0.0, 0.0, set()

    def watch(self) -> None:
        """Listen to the compilers that are imported. Imports none: that takes seconds."""
        for module, listen in (("numba", self._listen_to_numba), ("torch._dynamo", self._listen_to_torch)):
            if module in sys.modules and module not in self._watched:
                self._watched.add(module)
                listen()

    def _listen_to_numba(self) -> None:
        from numba.core import event

        listener = type("Listener", (event.Listener,), {"on_start": self.begin, "on_end": self.end})
        event.register("numba:compile", listener())

    def _listen_to_torch(self) -> None:
        dynamo = sys.modules["torch._dynamo"]
        if hasattr(dynamo, "on_compile_start"):
            dynamo.on_compile_start(self.begin)
            dynamo.on_compile_end(self.end)

    def begin(self, *_) -> None:
        """A compilation begins, perhaps within another."""
        with self._lock:
            if self._depth == 0:
                self._started = time.perf_counter()
            self._depth += 1

    def end(self, *_) -> None:
        """It has ended."""
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._total += time.perf_counter() - self._started

    @property
    def seconds(self) -> float:
        """Until now, while several compile at once counted once."""
        with self._lock:
            return self._total + (time.perf_counter() - self._started if self._depth else 0.0)


_compiling = Compiling()


class EpochClock:
    """Times one pass over batches.

    The wait for the first batch is counted apart: it includes the start of threads or processes. CUDA is synchronised
    only at the end. `earlier`: facts() of the part of the epoch before an interruption, which are included. `marks`:
    of a device other than this process has, for tests.
    """

    def __init__(self, device: torch.device, earlier: dict | None = None, marks=None):
        self._device, self._before = device, earlier or {}
        self._marks = marks or (CudaMarks() if device.type == "cuda" else HostMarks())
        self._start = time.perf_counter()
        self._busy = cpu_threads.busy_seconds_of_all()
        self._total = self._earlier = self._before.get("train_time", 0.0)
        self.images = self._before.get("images", 0)
        self._first, self._arrives = True, "wait"
        _compiling.watch()
        self._compiled = _compiling.seconds

    def mark(self, part: str) -> None:
        """What has passed since the last mark was `part`."""
        if self._first and part in ("wait", "transfer"):
            part = "start"
        compiled, self._compiled = self._compiled, _compiling.seconds
        self._marks.mark(part, self._compiled - compiled)

    def watch(self, batches: Iterable) -> Iterator:
        """Yield the batches; the time until each of them arrives counts as waiting."""
        batches = iter(batches)
        while True:
            self.mark("other")
            batch = next(batches, None)
            self.mark(self._arrives)
            if batch is None:
                return
            self._first = False
            self.images += len(batch[1])
            yield batch

    def arrived(self) -> None:
        """A batch has arrived on the host: what its copy still takes is transfer. For Pipeline.arrived."""
        self._arrives = "transfer"
        self.mark("wait")

    def stop(self) -> float:
        """Seconds since the start, including all work on the GPU."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.mark("other")
        self._marks.finish()
        self._total = self._earlier + time.perf_counter() - self._start
        return self._total

    def facts(self) -> dict:
        """For the log, after stop(): `train_time` and its parts. `images_per_second` is without start and compiling.

        `idle_cores` is the mean number of this process's cores that nobody used, where that can be told; on CUDA
        `gpu_idle_time` is what the GPU has waited for data and copies.
        """
        parts = {name: self._marks.seconds[part] + self._before.get(name, 0.0) for part, name in PARTS.items()}
        parts["other_time"] += max(0.0, self._total - sum(parts.values()))  # what no mark was there for
        steady = self._total - parts["first_batch_time"] - parts["compile_time"]
        facts = {"train_time": self._total, **parts, "images": self.images}
        facts["images_per_second"] = self.images / steady if steady > 0 else None
        if self._device.type == "cuda":
            facts["gpu_idle_time"] = parts["wait_time"] + parts["transfer_time"]
        idle = cpu_threads.idle_cores(self._busy, self._start)
        return facts | ({} if idle is None else {"idle_cores": idle})


def of_all_ranks(facts: dict, rank) -> dict:
    """facts() of this rank, and of all ranks where there are several: their images per second together, and the longest
    that one has waited for data and copies (`slowest_rank`), for which all others have waited too."""
    if rank.world_size == 1:
        return facts
    ranks: list = [None] * rank.world_size
    torch.distributed.all_gather_object(ranks, facts)
    waits = [each["wait_time"] + each["transfer_time"] for each in ranks]
    slowest = max(range(len(waits)), key=waits.__getitem__)
    rates = [each["images_per_second"] or 0.0 for each in ranks]
    return facts | {
        "images_per_second_of_all_ranks": sum(rates),
        "slowest_rank": slowest,
        "longest_wait_time": waits[slowest],
    }
