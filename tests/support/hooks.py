"""Hooks: what changes a script from within, in a process of its own (see scripts.Forked).

Only the standard library at the top: the process imports this file.
"""

import os
import signal
import time
from pathlib import Path

# Of a write


def kill_before_step(number: int) -> None:
    """SIGKILL before this one of the steps that a write is made of."""
    import pathlib

    from beton.writing import journal, layout, transaction

    calls = 0

    def fatal(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for holder, names in (
        (journal.Journal, "add truncate close"),
        (layout.Layout, "place truncate finish"),
        (os, "replace fsync"),
        (pathlib.Path, "unlink"),
        (transaction, "card_text"),
    ):
        for name in names.split():
            setattr(holder, name, fatal(getattr(holder, name)))


def slow_write() -> None:
    """So that a signal comes before the end."""
    from beton.writing import writer

    place = writer.Layout.place
    writer.Layout.place = lambda *args: (time.sleep(0.01), place(*args))[1]


def hanging_read() -> None:
    """Photo 007 never comes, as from a network that is gone."""
    import threading

    from beton.sources.imagefolder import PhotoFolder

    read = PhotoFolder.read
    PhotoFolder.read = lambda self, i: threading.Event().wait() if "007" in self.name(i) else read(self, i)


def small_memory(more: int = 150 << 20) -> None:
    """No more memory than so many bytes beside what the process has."""
    import resource

    import beton.format.downscale
    import beton.writing.writer  # noqa: F401  what is imported takes address space

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + more,) * 2)


def small_pages() -> None:
    """Betons of pages of 64 KB, so that a small one has many."""
    from beton.writing import writer

    writer.page_size = lambda largest: 64 << 10


# Of a training run


def never_ending_validation(folder):
    from runtime.training import engine

    engine.evaluate_all = lambda *_: _say_and_wait(folder)


def never_ending_validation_of_one_rank(folder):
    """The other one is done with it, and waits."""
    from runtime.training import engine

    forked_ranks(folder)
    engine.evaluate_all = lambda recipe, validation, rank, *_: (
        _say_and_wait(folder) if rank.first else {"val_loss": 0.0, "top_1": 0.0, "top_5": 0.0}
    )


def endless_first_step(folder):
    from runtime.training import engine

    engine.step = lambda *_: _say_and_wait(folder)


def stalled_loader(folder):
    """No batch after the third."""
    from runtime.training import clock

    watch = clock.EpochClock.watch

    def stalled(self, loader):
        for i, batch in enumerate(watch(self, loader)):
            if i == 3:
                _say_and_wait(folder)
            yield batch

    clock.EpochClock.watch = stalled


def endless_second_step(folder):
    from runtime.training import engine

    step = engine.step

    def endless(*given):
        if os.path.getsize(f"{folder}/steps"):
            _say_and_wait(folder)
        step(*given)

    engine.step = endless


def signals_while_saving(folder):
    """Each checkpoint is interrupted by two more SIGTERM when its file is half written."""
    from runtime.training import checkpoint

    flush = checkpoint._Hashing.flush

    def interrupted(self):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        flush(self)

    checkpoint._Hashing.flush = interrupted


def forked_ranks(folder):
    """Ranks need not import everything again either; that they can: test_launch.py."""
    import pickle

    import torch.multiprocessing as mp

    def spawn(function, args, **how):
        pickle.dumps((function, args))  # as they come to a process that is spawned
        return mp.start_processes(function, args, **how, start_method="fork")

    mp.spawn = spawn


def many_ranks(count):
    """So many are forked, on any number of cores."""
    forked_ranks(None)
    os.cpu_count = lambda: count


def recorded_losses(ranks, folder):
    """Each rank writes the loss of each step."""
    from runtime.training import engine

    if ranks > 1:
        many_ranks(ranks)
    add = engine.EpochSums.add

    def noted(self, loss, photos, lr):
        add(self, loss, photos, lr)
        with open(f"{folder}/losses-{self.rank.rank}", "a") as file:
            file.write(f"{loss.item()!r}\n")

    engine.EpochSums.add = noted


def as_after_nohup(folder):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _say_and_wait(folder):
    Path(folder, "waiting").touch()
    while True:
        signal.pause()
