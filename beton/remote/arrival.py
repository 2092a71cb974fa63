"""The files of a data set on their way into a folder of this machine, in use as they come."""

from __future__ import annotations

import copy
import os
import shutil
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from beton import progress
from beton.errors import UserError, without_secrets
from beton.files import partial_path
from beton.format.card import card_path
from beton.format.file import BetonFile
from beton.format.joined import JoinedFile
from beton.format.parts import is_url
from beton.remote.fetch import Remote, Stopped
from beton.remote.stores import Fsspec, Http, open_store
from beton.remote.urls import items_of, place_of
from beton.workers import in_order

_LOOKS = 8  # objects that are asked about at a time


class Arrival:
    """The files of the URLs in `text` (and local ones among them), fetched into the folder `cache`.

    `open()` them as soon as their tables are there; `wait(samples)` for the files of samples, `wait()` for all. They
    are fetched in their order by a thread that begins with open(); other processes of this machine that want them wait
    for it. `rank` is for the log. Raises UserError.
    """

    def __init__(self, text: str, cache: str | Path | None, rank: int = 0):
        if cache is None:
            what = f"{text} is to be fetched into a folder, and none is given"
            raise UserError(what, "give `cache`, or the path that `python -m beton fetch` prints")
        self.text, self.cache, self._rank = text, Path(os.path.abspath(cache)), rank
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None
        self._stop, self._changed, self._thread = threading.Event(), threading.Condition(), None
        self._error: BaseException | None = None
        self._process = os.getpid()
        self._started, self._stores = time.monotonic(), {}
        self.files = [self._file(item) for item in items_of(text, lambda url: self._store(url).listed(url))]
        self._remotes = [file for file in self.files if isinstance(file, Remote)]
        for _ in in_order(lambda i: self._remotes[i].look(), 0, len(self._remotes), _LOOKS, 1):
            pass
        self._check_room()
        self._here = np.zeros(len(self.files), np.bool_)

    def _file(self, item: str) -> Remote | str:
        return Remote(item, place_of(item, self.cache), self._store(item), self._stop) if is_url(item) else item

    def _store(self, url: str) -> Http | Fsspec:
        """One for all files of a server or bucket: it keeps its connections."""
        parts = urlsplit(url)
        of = parts.scheme, parts.netloc
        if of not in self._stores:
            self._stores[of] = open_store(url)
        return self._stores[of]

    def _check_room(self) -> None:
        """Raise UserError where the disk cannot hold what is missing; hours before it would be full."""
        try:
            free = shutil.disk_usage(self.cache).free
        except OSError as error:
            raise self._unwritable(error) from None
        missing = self.missing()
        if missing > free:
            what = f"{self.cache} has room for {_size(free)}, and {_size(missing)} are to be fetched into it"
            raise UserError(what, "make room, or give another `cache`")

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self.cache} ({error.strerror})", "give another `cache`")

    def missing(self) -> int:
        """Bytes that are still to be fetched."""
        return sum(remote.missing() for remote in self._remotes)

    # As a file

    def open(self) -> BetonFile:
        """The files as one, once their tables are there; the rest is then on its way."""
        try:
            for _ in in_order(lambda i: self._remotes[i].fetch_tables(), 0, len(self._remotes), _LOOKS, 1):
                pass
            if len(self.files) == 1:
                file = self._opened(self.files[0], *self._names())
                self._firsts = np.array([0, len(file)])
            else:
                names = self._names()
                by_name = dict(zip(names, self.files, strict=True))
                file = JoinedFile(self.text, names, lambda name: self._opened(by_name[name], name))
                self.files = [by_name[part.path] for part in file.parts]  # in the order of their samples
                file.path = without_secrets(self.text)
                self._firsts = np.cumsum([0, *(len(part) for part in file.parts)])
        except BaseException:
            self.close()
            raise
        opened = getattr(file, "parts", [file])
        self._nodes = [os.fstat(part._file.fileno()).st_ino for part in opened]
        file.arrival = self
        self._thread = threading.Thread(target=self._run, name="beton-fetch", daemon=True)
        self._thread.start()
        return file

    def _names(self) -> list[str]:
        """What messages call the files: without queries, but for the number of one that nothing else tells apart."""
        items = [file.url if isinstance(file, Remote) else file for file in self.files]
        names = list(map(without_secrets, items))
        twice = {name for name, item in zip(names, items, strict=True) if names.count(name) > items.count(item)}
        return [f"{name} (number {n})" if name in twice else name for n, name in enumerate(names, 1)]

    def _opened(self, file: Remote | str, name: str) -> BetonFile:
        if isinstance(file, str):
            return BetonFile(file)
        card = card_path(file.path)
        try:
            found = BetonFile(partial_path(file.path) if not file.path.exists() else file.path, card)
        except UserError:
            if not file.path.exists():
                raise
            found = BetonFile(file.path, card)  # it was published just now
        found.path, found._absolute = name, str(file.path)
        return found

    def parts(self) -> np.ndarray:
        """Which file holds each sample (int64)."""
        return np.repeat(np.arange(len(self.files)), np.diff(self._firsts))

    # What has come

    def wait(self, samples: np.ndarray | None = None, seconds: float | None = None) -> bool:
        """Until the files of these samples (int64), or all, are there and checked, or so many seconds have passed;
        whether they are there. Raises what fetching failed of, and RuntimeError in a process that was forked while they
        were on their way: the thread that fetches is not there."""
        if self.is_complete:
            return True
        if os.getpid() != self._process:
            what = f"the files of {without_secrets(self.text)} are on their way into another process"
            raise RuntimeError(f"{what}, of which this one is a fork; open them in this one too")
        wanted = np.ones(len(self.files), np.bool_)
        if samples is not None:
            wanted[:] = False
            wanted[np.unique(np.searchsorted(self._firsts, samples, "right") - 1).clip(0, len(wanted) - 1)] = True
        with self._changed:
            while not self._here[wanted].all():
                if self._error is not None:
                    raise copy.copy(self._error)
                if self._stop.is_set():
                    raise RuntimeError(f"the loader of {without_secrets(self.text)} is closed")
                self._changed.wait(seconds or 1)  # with a limit, so that a signal is seen on every system
                if seconds is not None:
                    break
            return bool(self._here[wanted].all())

    @property
    def is_complete(self) -> bool:
        """Whether all files are there."""
        return bool(self._here.all())

    def paths(self) -> list[str]:
        """Where the files are, once they are there."""
        return [str(file.path) if isinstance(file, Remote) else file for file in self.files]

    def close(self) -> None:
        """End the fetching; what has come is kept."""
        if os.getpid() != self._process:
            return
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(5)  # a server that is silent is not waited for

    # In the thread

    def _run(self) -> None:
        try:
            for number, file in enumerate(self.files):
                if isinstance(file, Remote):
                    file.fetch()
                    self._check_node(number, file)
                with self._changed:
                    self._here[number] = True
                    self._changed.notify_all()
            self._log(time.monotonic() - self._started)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  raised by whoever waits
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _check_node(self, number: int, file: Remote) -> None:
        with suppress(FileNotFoundError):
            if os.stat(file.path).st_ino == self._nodes[number]:
                return
        what = f"{file.url} was fetched anew by another process while it was in use here"
        raise UserError(what, "start again")

    def _log(self, seconds: float) -> None:
        """Say what this process has fetched, if it has."""
        fetched = [remote for remote in self._remotes if remote.bytes]
        if not fetched:
            return
        count, total = sum(remote.bytes for remote in fetched), sum(remote.size for remote in fetched)
        there = f" of {_size(total)} (the rest was there)" if count < total else ""
        unchecked = sum(not remote.verified for remote in fetched)
        checked = f"{unchecked} of them without a card, so not checked" if unchecked else "SHA-256 as in the cards"
        print(
            f"=> fetched {_size(count)}{there} in {seconds:.1f} s ({_size(count / max(seconds, 1e-9))}/s) from "
            f"{without_secrets(self.text)} into {self.cache}: {len(fetched)} of {len(self.files)} files, by rank "
            f"{self._rank} (process {os.getpid()} on {socket.gethostname()}), {checked}",
            flush=True,
        )


def fetch(text: str, cache: str | Path | None) -> list[str]:
    """The paths of the files of a text with URLs, once they have all been fetched into `cache`. Raises UserError."""
    arrival = Arrival(text, cache)
    try:
        missing = arrival.missing()
        with arrival.open(), progress.bar(missing // 10**6, "MB") as shown:
            before = 0
            while not arrival.wait(seconds=0.2):
                now = (missing - arrival.missing()) // 10**6
                shown.update(now - before)
                before = now
        return arrival.paths()
    finally:
        arrival.close()


def mixed(labels: np.ndarray | None, parts: np.ndarray) -> int | None:
    """The first file whose classes differ from those of all by more than chance; None where they are mixed.

    The share of samples by which they differ (half the sum of |p - q| over C classes) is below sqrt(C / n) / 2 on
    average for n samples drawn at random; 0.1 more is allowed.
    """
    if labels is None:
        return None
    _, labels = np.unique(labels, return_inverse=True)
    classes, whole = labels.max() + 1, np.bincount(labels) / len(labels)
    for part in range(parts.max() + 1):
        own = np.bincount(labels[parts == part], minlength=classes)
        n = max(own.sum(), 1)
        if np.abs(own / n - whole).sum() / 2 > 0.1 + np.sqrt(classes / n) / 2:
            return part
    return None


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
