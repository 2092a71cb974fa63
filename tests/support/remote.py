"""Servers for files from elsewhere: they count what they send, break off, stop, change their minds."""

import threading
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

PIECE = 1 << 12


@dataclass
class Sent:
    """A GET that was answered: bytes `start` ... `start + size - 1` of a file were sent."""

    name: str
    start: int
    size: int = 0


@dataclass
class Faults:
    """What goes wrong. `breaks`: so many times an answer of this file ends after so many bytes. `holds`: the file of
    which no more than so many bytes are sent, all answers together. `statuses`: the answer for a file."""

    ranged: bool = True
    breaks: dict[str, list[int]] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    etag: str | None = "one"


class Server(ThreadingHTTPServer):
    """The files of a folder, or the answers of another server, on the loopback; a context."""

    daemon_threads = True

    def __init__(self, folder: Path | None = None, upstream: str | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.upstream, self.faults = folder, upstream, Faults()
        self.sent: list[Sent] = []
        self.held: set[str] = set()
        self.released: set[str] = set()
        self.lock, self.ended = threading.Lock(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.shutdown()
        self.server_close()

    def of(self, name: str) -> list[Sent]:
        """What was sent of a file."""
        return [sent for sent in self.sent if sent.name == name and sent.size]

    def bytes_of(self, name: str) -> int:
        return sum(sent.size for sent in self.of(name))

    def release(self) -> None:
        """Break off the answers of files that are held, those too that were asked for and have not begun: whoever
        asked may be gone."""
        with self.lock:
            self.faults.holds, self.released = {}, set(self.held)
            self.held.clear()
            self.ended.set()
            self.ended = threading.Event()

    def handle_error(self, *_) -> None:
        """A client that has gone is none of ours."""


def times_sent(server: Server, name: str, size: int) -> list[int]:
    """How often each byte of a file was sent."""
    counts = [0] * size
    for sent in server.of(name):
        for at in range(sent.start, sent.start + sent.size):
            counts[at] += 1
    return counts


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.ended = self.server.ended
        name = unquote(urlsplit(self.path).path).rpartition("/")[2]
        status = self.server.faults.statuses.get(name)
        if status:
            self.send_error(status)
        elif self.server.upstream:
            self._pass_on(name, body)
        else:
            self._of_folder(name, body)

    def _of_folder(self, name: str, body: bool) -> None:
        path, faults = self.server.folder / name, self.server.faults
        if not path.is_file():
            self.send_error(404)
            return
        content, start = path.read_bytes(), 0
        if self.headers["Range"] and faults.ranged:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1, len(content))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
            content = content[start:stop]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if faults.etag:
            self.send_header("ETag", f'"{faults.etag}"')
        self.end_headers()
        if body:
            self._send(name, start, [content[at : at + PIECE] for at in range(0, len(content), PIECE)])

    def _pass_on(self, name: str, body: bool) -> None:
        host = urlsplit(self.server.upstream).netloc
        upstream = HTTPConnection(host, timeout=60)
        try:
            upstream.request(self.command, self.path, headers=dict(self.headers))
            answer = upstream.getresponse()
            self.send_response_only(answer.status, answer.reason)
            for key, value in answer.getheaders():
                if key.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(key, value)
            whole = answer.read()
            if answer.getheader("Content-Length") is None:
                self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            if not body:
                return
            if answer.status not in (200, 206):
                self.wfile.write(whole)
                return
            asked = self.headers["Range"]
            start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
            self._send(name, start, [whole[at : at + PIECE] for at in range(0, len(whole), PIECE)])
        finally:
            upstream.close()

    def _send(self, name: str, start: int, pieces: list[bytes]) -> None:
        server, sent = self.server, Sent(name, start)
        with server.lock:
            server.sent.append(sent)
            planned = server.faults.breaks.get(name)
            most = planned.pop(0) if planned else None
        for piece in pieces:
            with server.lock:
                most_of_all = server.faults.holds.get(name)
                if most_of_all is not None and server.bytes_of(name) + len(piece) > most_of_all:
                    server.held.add(name)  # from now on nothing of it is sent
                held = name in server.held or (self.ended.is_set() and name in server.released)
                if not held:
                    if most is not None:
                        piece = piece[: most - sent.size]
                    sent.size += len(piece)
            if held:
                self.ended.wait()
                break
            self.wfile.write(piece)
            if most is not None and sent.size >= most:
                break
        else:
            return
        self.close_connection = True


def make_small(monkeypatch=None) -> None:
    """Ranges of 8 kB, and pauses that no test waits for."""
    from beton.remote import fetch, partial, stores

    small = {(fetch, "HEAD"): 1 << 12, (fetch, "PAUSES"): (0.01,) * 3, (partial, "RANGE"): 1 << 13}
    small |= {(stores, "PIECE"): 1 << 12}
    for (module, name), value in small.items():
        if monkeypatch is None:
            setattr(module, name, value)
        else:
            monkeypatch.setattr(module, name, value)


STAGES = "rrc(16)|flip"


def load(text: str, cache: str, out: str, given: dict, start: int = 0, environment: dict | None = None) -> None:
    """In a process of its own: an epoch, of whose batches the numbers of the samples go to the file `out`, a line each,
    and the sum of their pixels."""
    import os
    import sys

    import beton

    os.environ.update(environment or {})
    make_small()
    with open(out, "a", buffering=1) as lines:
        try:
            with beton.Loader(
                text, 6, image=STAGES, cache=cache, workers=2, seed=3, with_indices=True, **given
            ) as loader:
                for images, _, indices in loader.batches(0, start):
                    lines.write(f"{indices.tolist()} {int(images.sum())}\n")
        except beton.UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


def prepare(environment: dict, *_) -> None:
    """In a process of its own, before it begins."""
    import os

    os.environ.update(environment)
    make_small()
