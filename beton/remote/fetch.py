"""One file, fetched: its card and tables first, then the rest in parallel ranges; checked, then published.

What a folder has of a file: `<name>` and its card once it is complete, and beside them `.<name>.fetched`, which says
of which object; until then what partial.py says. `.<name>.lock` is locked by whoever fetches, so that on a machine one
process does and others wait; the lock of one that is killed is free at once, and another goes on where it was.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from beton import system
from beton.errors import UserError, without_secrets
from beton.files import partial_path, publish
from beton.format.card import card_path, read_card
from beton.format.tables import extent
from beton.remote import partial as partials
from beton.remote.partial import Partial, no_room
from beton.remote.stores import Broken, Changed, Fsspec, Http, Missing, NoRanges
from beton.remote.urls import card_url
from beton.workers import in_order

# Requests at a time; seconds before another try where nothing more came; bytes read to learn where the tables are
CONNECTIONS, PAUSES, HEAD = 8, (1, 2, 4, 8), 1 << 18
_POLL = 0.1  # seconds


class Stopped(Exception):
    """The fetching is not wanted any more."""


class Remote:
    """The object `url` and the file `path` that it becomes; `stop` is set when it is not wanted any more.

    `bytes` counts what this process has fetched of it.
    """

    def __init__(self, url: str, path: Path, store: Http | Fsspec, stop: threading.Event):
        self.url, self.path, self.bytes = url, path, 0
        self._store, self._stop, self._counting = store, stop, threading.Lock()

    # What there is

    def look(self) -> bool:
        """Ask what the object is; whether its file is complete. Raises UserError if it has changed since."""
        noted = self._noted()
        try:
            self.about = self._again(lambda: self._store.about(self.url))
        except Lost as error:
            if noted is None:
                raise
            print(f"note: {error.what}; {self.path}, which was fetched before, is used", flush=True)
            return True
        self.size = self.about.size
        if noted is not None and noted != {"size": self.size, "version": self.about.version}:
            what = f"{self.url} has changed since it was fetched into {self.path}"
            raise Changed(what, "delete that folder to fetch it anew, or give another `cache`")
        return noted is not None

    def missing(self) -> int:
        """Bytes that are still to be fetched."""
        if self.is_complete:
            return 0
        partial = self._partial()
        return self.size if partial is None or partial.tables is None else int(partial.missing().sum())

    @property
    def is_complete(self) -> bool:
        """Whether the file is there, all of it."""
        return self._noted() is not None

    def _noted(self) -> dict[str, Any] | None:
        """Of which object the complete file is; None where there is none."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads(_note_path(self.path).read_text())
            if self.path.stat().st_size == about["size"]:
                return {"size": about["size"], "version": about["version"]}
        return None

    def _partial(self) -> Partial | None:
        return Partial.found(self.path, self._identity()) if self._card_is_there() else None

    def _identity(self) -> dict[str, Any]:
        """What must be the same for bytes to be of the same file."""
        expected = self._sha256()
        check = {"sha256": expected} if expected else {"boot": partials.boot()}
        return {"url": without_secrets(self.url), "size": self.size, "version": self.about.version, **check}

    def _sha256(self) -> str | None:
        return (read_card(card_path(self.path)) or {}).get("sha256")

    def _card_is_there(self) -> bool:
        return card_path(self.path).exists() or _no_card(self.path).exists()

    # Its tables, and all of it

    def fetch_tables(self) -> None:
        """Have the tables of the file, or all of it. Waits while another process fetches; raises its error too."""

        def ready() -> bool:
            return self.is_complete or ((found := self._partial()) is not None and found.has_tables)

        with self._locked(ready) as mine:
            if mine:
                self._tables()

    def fetch(self) -> None:
        """Have all of the file. Waits while another process fetches it; raises its error too."""
        with self._locked(lambda: self.is_complete) as mine:
            if not mine:
                return
            partial = self._tables()
            self._rows(partial, len(partial.rows))
            self._check(partial)
            self._publish(partial)

    def _tables(self) -> Partial:
        """What there is of the file, with its tables."""
        partial = self._partial()
        if partial is None:
            if partial_path(self.path).exists():
                print(f"note: {without_secrets(self.url)} is another one by now; it is fetched anew", flush=True)
            self._fetch_card()
            self._check_card()
            try:
                partial = Partial.begun(self.path, self._identity(), HEAD)
            except OSError as error:
                raise no_room(self.path.parent, error) from None
        if partial.tables is None:
            partial = self._plan(partial)
        self._rows(partial, partial.tables)
        return partial

    def _plan(self, partial: Partial) -> Partial:
        try:
            self._rows(partial, 1)
        except NoRanges:
            return partial.in_one()
        try:
            with open(partial.bytes, "rb") as file:
                return partial.planned(*extent(file, self.url, self.size))
        except UserError:
            partials.discard(self.path)
            raise

    def _fetch_card(self) -> None:
        """The card, or a note that there is none."""
        url, card = card_url(self.url), b""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            about = self._again(lambda: self._store.about(url)) if url else None
        except Missing:
            about = None
        if about is None:
            publish(_no_card(self.path), b"")
            return
        card = self._again(lambda: b"".join(self._store.stream(url, about, 0, about.size)))
        publish(card_path(self.path), card)

    def _check_card(self) -> None:
        """Raise UserError where the card is that of another file."""
        try:
            expected = (read_card(card_path(self.path)) or {}).get("bytes", self.size)
            if expected != self.size:
                what = f"{self.url} has {self.size} bytes, and its card is of a file of {expected}"
                raise UserError(what, "upload both again")
        except UserError:
            card_path(self.path).unlink(missing_ok=True)
            raise

    # Ranges

    def _rows(self, partial: Partial, count: int) -> None:
        """Fetch what is missing of the first `count` ranges."""
        missing = [row for row in range(count) if partial.missing()[row]]
        stop = threading.Event()
        try:
            work = in_order(lambda i: self._row(partial, missing[i], stop), 0, len(missing), CONNECTIONS, 1)
            for _ in work:
                pass
        finally:
            stop.set()  # for those that are still at it after an error

    def _row(self, partial: Partial, row: int, stop: threading.Event) -> None:
        start, end, _ = partial.rows[row].tolist()
        is_whole = len(partial.rows) == 1 and partial.tables == 1  # the server may know no ranges

        def rest() -> None:
            self._go_on(stop)
            if is_whole:
                partial.rows[row, 2] = 0
            done = int(partial.rows[row, 2])
            if done == end - start:
                return
            for chunk in self._store.stream(self.url, self.about, start + done, end):
                _write(file, chunk, start + done)
                done += len(chunk)
                partial.rows[row, 2] = done
                with self._counting:
                    self.bytes += len(chunk)
                self._go_on(stop)

        try:
            with open(partial.bytes, "rb+", buffering=0) as file:  # its own: it may be late for what follows
                self._again(rest, None if is_whole else lambda: int(partial.rows[row, 2]))
        except OSError as error:
            raise no_room(self.path.parent, error) from None

    def _go_on(self, *more: threading.Event) -> None:
        if self._stop.is_set() or any(event.is_set() for event in more):
            raise Stopped

    def _again(self, ask: Callable[[], Any], done: Callable[[], int] | None = None) -> Any:
        """What `ask` gives, tried again where the connection breaks: as often as it gets further (`done`), and a few
        times where it does not."""
        tries, before = 0, None
        while True:
            try:
                return ask()
            except Broken as error:
                now = done() if done else 0
                tries = 0 if before is not None and now > before else tries
                before = now
                if tries == len(PAUSES):
                    raise _lost(self.url, error, tries + 1) from None
                if self._stop.wait(PAUSES[tries]):
                    raise Stopped from None
                tries += 1

    # The end

    def _check(self, partial: Partial) -> None:
        """Raise UserError unless the bytes are those of one version, and of the card."""
        try:
            if self._again(lambda: self._store.about(self.url)) != self.about:
                raise Changed(f"{self.url} has changed while it was being fetched", "fetch it again")
            expected = self._sha256()
            if expected and system.sha256(partial.bytes) != expected:
                what = f"what came from {self.url} is not what its card says (the SHA-256 differs)"
                raise UserError(what, "fetch it again; if that does not help, upload it and its card again")
        except OSError as error:
            raise no_room(self.path.parent, error) from None
        except Stopped:
            raise
        except UserError as error:
            if not isinstance(error, Lost):
                self._forget()
            raise

    def _forget(self) -> None:
        partials.discard(self.path)
        for path in (card_path(self.path), _no_card(self.path)):
            path.unlink(missing_ok=True)

    def _publish(self, partial: Partial) -> None:
        try:
            with open(partial.bytes, "rb+") as file:
                os.fsync(file.fileno())
            about = {"url": without_secrets(self.url), "size": self.size, "version": self.about.version}
            publish(_note_path(self.path), json.dumps(about) + "\n")
            os.replace(partial.bytes, self.path)
            system.sync_folder(self.path.parent)
        except OSError as error:
            raise no_room(self.path.parent, error) from None
        partials.discard(self.path)
        _no_card(self.path).unlink(missing_ok=True)

    @property
    def verified(self) -> bool:
        """Whether there was a SHA-256 to compare with."""
        return self._sha256() is not None

    # One at a time

    @contextmanager
    def _locked(self, ready: Callable[[], bool]) -> Iterator[bool]:
        """Whether the lock is held: False where it is `ready` meanwhile. An error of the process that held it is
        raised here too, and one that is raised here is left to those that wait."""
        if ready():
            yield False
            return
        with _lock_file(self.path) as file:
            before = _said(file)
            while not _lock(file, self.path.parent):
                if ready():
                    yield False
                    return
                time.sleep(_POLL)
                self._go_on()
            if ready():
                yield False
                return
            if (error := _said(file)) and error != before:
                raise UserError(*error["error"])
            try:
                yield True
            except UserError as error:
                said = {"error": [error.what, error.to_do], "by": [os.getpid(), time.time_ns()]}
                _say(file, json.dumps(said).encode())
                raise


class Lost(UserError):
    """A connection that did not come back."""


def _lost(url: str, error: Exception, times: int) -> Lost:
    what = f"the connection to {url} broke {times} times in a row ({error})"
    return Lost(what, "check the network, then start again: what is there already is kept")


def _write(file: IO[bytes], chunk: bytes, at: int) -> None:
    view = memoryview(chunk)
    file.seek(at)
    while len(view):
        count = file.write(view)
        if not count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[count:]


@contextmanager
def _lock_file(path: Path) -> Iterator[IO[bytes]]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = system.open_to_update(path.with_name(f".{path.name}.lock"))
    except OSError as error:
        raise no_room(path.parent, error) from None
    with file:
        yield file


def _lock(file: IO[bytes], folder: Path) -> bool:
    try:
        return system.lock(file)
    except OSError as error:  # some network disks have no locks
        what = f"cannot lock a file in {folder} ({error.strerror or error})"
        raise UserError(what, "give a `cache` on a disk of this machine") from None


def _said(file: IO[bytes]) -> dict | None:
    """The error that the last process with the lock has left."""
    try:
        return json.loads(system.read_at(file, 1 << 16, 0))
    except ValueError:
        return None


def _say(file: IO[bytes], text: bytes) -> None:
    with suppress(OSError):  # the disk is full: those that wait find out for themselves
        file.raw.seek(0)  # not through the buffer, which would be written again when the file is closed
        file.raw.truncate()
        file.raw.write(text)


def _note_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.fetched")


def _no_card(path: Path) -> Path:
    return path.with_name(f".{path.name}.no-card")
