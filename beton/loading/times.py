"""Where the threads of a loader spend their time, by part and photo; counted only where a task is `timed`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

# read: payloads from the disk or the page cache; decode; resize: with the conversion to RGB, and normalize where it is
# fused; augment: the stages behind the crop, and normalize where it is not; collate: all else (labels, checks, Python)
PARTS = ("read", "decode", "resize", "augment", "collate")


class Times:
    """Seconds of all threads together, by part, and how many samples they are of."""

    def __init__(self):
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Begin at zero."""
        self.seconds, self.samples = dict.fromkeys(PARTS, 0.0), 0

    def add(self, seconds: Mapping[str, float], samples: int) -> None:
        """What one thread has spent on so many samples; from any thread."""
        with self._lock:
            self.samples += samples
            for part, spent in seconds.items():
                self.seconds[part] += spent

    def per_sample(self) -> dict[str, float]:
        """Seconds of a thread for one sample, by part; {} where nothing was counted."""
        return {part: spent / self.samples for part, spent in self.seconds.items()} if self.samples else {}


@contextmanager
def spending(spent: dict[str, float] | None, part: str) -> Iterator[None]:
    """Add the time within to a part of `spent`, if there is one."""
    if spent is None:
        yield
        return
    started = perf_counter()
    try:
        yield
    finally:
        spent[part] += perf_counter() - started
