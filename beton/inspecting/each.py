"""Work on every sample of a file, in threads, with a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from beton import progress, system
from beton.workers import in_order

_CHUNK = 32


def each(work: Callable[[int], Any], count: int) -> Iterator[tuple[int, Any]]:
    """(i, work(i)) for i below `count`, in order, by as many threads as there are cores."""
    with closing(in_order(work, 0, count, system.cores(), _CHUNK)) as results, progress.bar(count, "samples") as bar:
        for result in results:
            bar.update(1)
            yield result
