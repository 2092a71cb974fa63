"""Work for many items in threads or processes, its results in order."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import wait
from queue import Empty, SimpleQueue
from typing import Any

from beton.errors import UserError

# Threads that are not done by then are left to themselves: one that hangs in a read would never end
_SECONDS_TO_END = 2


def in_order(
    work: Callable[[int], Any], first: int, count: int, workers: int, chunk: int, processes: bool = False
) -> Iterator[tuple[int, Any]]:
    """Yield (i, work(i)) for i from `first` to `count` - 1, with few results waiting.

    `workers` threads (or `processes`, where the system can fork; else one thread) take at most `chunk` items at a
    time. An error in one is raised at once, whatever items before it are not done yet. When this ends, so do they.
    """
    workers = min(workers, max(1, count - first))
    # Smaller chunks than asked for where the workers would not end together
    size = min(chunk, max(1, count // (8 * workers)))
    chunks = [range(start, min(start + size, count)) for start in range(first, count, size)]
    if not processes:
        return _in_threads(work, chunks, workers)
    if workers > 1 and "fork" in multiprocessing.get_all_start_methods():
        return _in_processes(work, chunks, workers)
    return _in_threads(work, chunks, 1)


def _in_threads(work: Callable[[int], Any], chunks: list[range], workers: int) -> Iterator[tuple[int, Any]]:
    stopped = threading.Event()
    jobs, results = SimpleQueue(), SimpleQueue()

    def run() -> None:
        while (items := jobs.get()) is not None:
            try:
                result = [work(i) for i in items if not stopped.is_set()]
            except BaseException as error:  # noqa: BLE001  raised in the thread that waits for the results
                result = error
            results.put((items, result))

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
        raise UserError(f"cannot start {len(threads)} threads", "give a smaller number of `workers`") from None


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


def _in_processes(work: Callable[[int], Any], chunks: list[range], workers: int) -> Iterator[tuple[int, Any]]:
    """The same in forked processes, for work that threads cannot share."""
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, mp_context=fork, initializer=_begin_process, initargs=(work,))
    rest, running = iter(chunks), deque()
    try:
        while True:
            for items in rest:
                running.append((items, pool.submit(_work_on, items)))
                if len(running) >= workers + 2:
                    break
            if not running:
                return
            items, future = running.popleft()
            yield from zip(items, future.result(), strict=True)
    except BrokenProcessPool:
        to_do = "see its message above; set a smaller number of `workers` if memory ran out"
        raise UserError("a process that reads samples ended unexpectedly", to_do) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_work: Callable[[int], Any] | None = None  # of a forked process


def _begin_process(work: Callable[[int], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if "torch" in sys.modules:  # whose threads were not forked; a data set that needs them would wait for ever
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _work_on(items: range) -> list:
    return [_work(i) for i in items]
