"""Work for many items in threads, its results in order."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from pipelines.errors import UserError

# Threads that are not done by then are left to themselves: one that hangs in a read would never end
_SECONDS_TO_END = 2


def in_order(work: Callable[[int], Any], first: int, count: int, workers: int, chunk: int) -> Iterator[tuple[int, Any]]:
    """Yield (i, work(i)) for i from `first` to `count` - 1, with few results waiting.

    `workers` threads take at most `chunk` items at a time. An error in a thread is raised at once, whatever
    items before it are not done yet. When this ends, so do the threads.
    """
    stopped = threading.Event()
    jobs, results = SimpleQueue(), SimpleQueue()

    def run() -> None:
        while (items := jobs.get()) is not None:
            try:
                result = [work(i) for i in items if not stopped.is_set()]
            except BaseException as error:  # noqa: BLE001  raised in the thread that waits for the results
                result = error
            results.put((items, result))

    workers = min(workers, max(1, count - first))
    # Smaller chunks than asked for where the threads would not end together
    size = min(chunk, max(1, count // (8 * workers)))
    chunks = [range(start, min(start + size, count)) for start in range(first, count, size)]
    # Daemons, so that the process can end though one of them hangs
    threads = [threading.Thread(target=run, name=f"beton-writer-{n}", daemon=True) for n in range(workers)]
    done: dict = {}
    try:
        _start(threads)
        for items in chunks[: workers + 2]:
            jobs.put(items)
        for number, items in enumerate(chunks):
            while items not in done or not results.empty():
                finished, result = results.get()
                if isinstance(result, BaseException):
                    raise result
                done[finished] = result
            yield from zip(items, done.pop(items), strict=True)
            if number + workers + 2 < len(chunks):
                jobs.put(chunks[number + workers + 2])
    finally:
        stopped.set()
        _stop(threads, jobs)


def _start(threads: list) -> None:
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        raise UserError(f"cannot start {len(threads)} threads", "give a smaller cfg.num_workers") from None


def _stop(threads: list, jobs: SimpleQueue) -> None:
    with suppress(Empty):
        while True:
            jobs.get_nowait()
    for _ in threads:
        jobs.put(None)
    deadline = time.monotonic() + _SECONDS_TO_END
    for thread in threads:
        if thread.ident is not None:  # it was started
            thread.join(max(0, deadline - time.monotonic()))
