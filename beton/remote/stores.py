"""How objects are read: over HTTP(S) with the standard library, from S3 with s3fs, from all else with fsspec.

Each store has about(url), stream(url, about, start, stop) and listed(pattern). They raise UserError for what will not
change (Missing where there is no such object, Changed where it is another one by now), and Broken for what may.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from beton.errors import UserError

# Bytes that are read at most at a time, and in a request to a store that cannot stream; seconds that a server may be
# silent
CHUNK, PIECE, TIMEOUT = 1 << 18, 4 << 20, 30
# Where fsspec's systems have what tells two versions of an object apart
_VERSIONS = ("ETag", "etag", "generation", "blob_id", "LastModified", "last_modified", "updated", "mtime", "created")


class Broken(Exception):
    """A connection that broke off, or a server that has no answer for now."""


class Missing(UserError):
    """No such object."""

    def __init__(self, url: str):
        super().__init__(f"there is no object {url}", "check the URL")
        self.url = url

    def __reduce__(self):
        return type(self), (self.url,)


class Changed(UserError):
    """An object that is not the one that it was."""


@dataclass(frozen=True)
class About:
    """Of an object: its `size` in bytes, and its `version` (ETag, or when it was changed; empty if not known)."""

    size: int
    version: str


def open_store(url: str) -> Http | Fsspec:
    """The store that reads a URL. Raises UserError where a package for it is missing."""
    scheme = url.partition("://")[0]
    if scheme in ("http", "https"):
        return Http()
    try:
        import fsspec

        # An object that has changed must be seen
        system, _ = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        what = f"{scheme}:// needs a package that is not installed ({_first_line(error)})"
        raise UserError(what, "pip install 'ffcv-toolkit[remote]'") from None
    except ValueError as error:
        raise UserError(f"cannot read {url} ({_first_line(error)})", "check the URL") from None
    return S3(system) if scheme in ("s3", "s3a") else Fsspec(system)


class Http:
    """A web server. One that knows no ranges sends the whole of an object each time."""

    def about(self, url: str) -> About:
        """Of the object at `url`."""
        try:
            with self._answer(url, "HEAD") as answer:
                if not answer.headers["Content-Length"]:
                    raise _Refused
                return _about(url, answer)
        except _Refused:  # as a signed URL does, and some servers do
            with self._answer(url, "GET", 0, 1) as answer:
                return _about(url, answer)

    def stream(self, url: str, about: About, start: int, stop: int) -> Iterator[bytes]:
        """Bytes start ... stop - 1 as they come."""
        with self._answer(url, "GET", start, stop) as answer:
            if _about(url, answer) != about:
                raise changed(url)
            ranged = answer.status == 206
            if ranged and answer.headers["Content-Range"].split()[1].split("-")[0] != str(start):
                raise UserError(f"{url} comes in other ranges than asked for", "use another server")
            if not ranged and (start, stop) != (0, about.size):
                raise NoRanges
            rest = stop - start
            while rest and (chunk := _reading(answer, min(CHUNK, rest))):
                rest -= len(chunk)
                yield chunk
            if rest:
                raise Broken("the connection broke off")

    def listed(self, pattern: str) -> list[str]:
        """There is no list of what a web server has."""
        raise UserError(
            f"{pattern} is a pattern, and a web server has no list",
            "give the URLs of the files, a list",
        )

    def _answer(self, url: str, method: str, start: int = 0, stop: int = 0) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={start}-{stop - 1}"} if stop else {}
        request = urllib.request.Request(url, headers={"User-Agent": "beton", **headers}, method=method)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if method == "HEAD" and error.code in (400, 401, 403, 405, 501):
                raise _Refused from None
            if error.code in (404, 410):
                raise Missing(url) from None
            if error.code in (401, 403):
                raise forbidden(url, f"HTTP {error.code}") from None
            if error.code == 416:
                raise changed(url) from None
            if error.code == 429 or error.code >= 500:
                raise Broken(f"HTTP {error.code} {error.reason}") from None
            raise UserError(f"cannot read {url} (HTTP {error.code})", "check the URL") from None
        except (OSError, http.client.HTTPException) as error:
            raise Broken(_first_line(getattr(error, "reason", error))) from None
        except ValueError as error:
            raise UserError(f"cannot read {url} ({error})", "check the URL") from None


class _Refused(Exception):
    """No answer to a HEAD."""


class NoRanges(Exception):
    """The server sends the whole of an object only."""


def _reading(answer: http.client.HTTPResponse, size: int) -> bytes:
    try:
        return answer.read1(size)  # what has come: read() waits for all of it
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_first_line(error)) from None


def _about(url: str, answer: http.client.HTTPResponse) -> About:
    is_part = answer.status == 206
    size = answer.headers["Content-Range"].rpartition("/")[2] if is_part else answer.headers["Content-Length"]
    if not (size or "").isdecimal():
        raise UserError(f"the server does not say how large {url} is", "fetch it by other means")
    version = answer.headers["ETag"] or answer.headers["Last-Modified"] or ""
    return About(int(size), version)


class Fsspec:
    """Any file system of fsspec; what is on its way when a process ends are pieces of at most PIECE bytes."""

    def __init__(self, system: Any):
        self._system = system

    def about(self, url: str) -> About:
        """Of the object at `url`."""
        with _told(url):
            self._system.invalidate_cache()
            info = self._system.info(self._path(url))
        if info.get("type") == "directory":
            raise UserError(f"{url} is a folder", "give the URL of a .beton, or a pattern such as 'train-*.beton'")
        version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
        return About(int(info["size"]), version)

    def stream(self, url: str, about: About, start: int, stop: int) -> Iterator[bytes]:
        """Bytes start ... stop - 1, in pieces."""
        while start < stop:
            size = min(PIECE, stop - start)
            with _told(url):
                piece = self._system.cat_file(self._path(url), start=start, end=start + size)
            if len(piece) != size:
                raise Broken("fewer bytes came than asked for")
            yield piece
            start += size

    def listed(self, pattern: str) -> list[str]:
        """The URLs that fit a pattern."""
        with _told(pattern):
            return [self._system.unstrip_protocol(path) for path in self._system.glob(self._path(pattern))]

    def _path(self, url: str) -> str:
        return self._system._strip_protocol(url)


class S3(Fsspec):
    """S3: bytes are read as they come, of the version that is meant."""

    def stream(self, url: str, about: About, start: int, stop: int) -> Iterator[bytes]:
        """Bytes start ... stop - 1 as they come."""
        from fsspec.asyn import sync

        bucket, key, version = self._system.split_path(self._path(url))
        which = {"VersionId": version} if version else {}
        meant = {"Bucket": bucket, "Key": key, "Range": f"bytes={start}-{stop - 1}", "IfMatch": about.version, **which}
        body = None
        try:
            while start < stop:
                with _told(url):
                    if body is None:
                        body = self._system.call_s3("get_object", **meant)["Body"]
                    chunk = sync(self._system.loop, body.read, CHUNK)
                if not chunk:
                    raise Broken("the connection broke off")
                start += len(chunk)
                yield chunk
        finally:
            if body is not None:
                self._system.loop.call_soon_threadsafe(body.close)  # it belongs to the loop's thread


@contextmanager
def _told(url: str):
    """What fsspec's systems raise, as ours."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(url) from None
    except PermissionError as error:
        raise forbidden(url, _first_line(error)) from None
    except Exception as error:  # noqa: BLE001  each package has errors of its own
        if "credential" in type(error).__name__.lower():
            raise forbidden(url, _first_line(error)) from None
        cause = getattr(error, "__cause__", None)
        if "PreconditionFailed" in f"{error!r} {cause!r}" or "pre-conditions" in str(error):
            raise changed(url) from None
        raise Broken(_first_line(error)) from None


def changed(url: str) -> Changed:
    """The error for an object that has changed while it was fetched."""
    return Changed(f"{url} has changed while it was being fetched", "fetch it again")


def forbidden(url: str, why: str) -> UserError:
    """The error for an object that may not be read."""
    return UserError(f"no permission to read {url} ({why})", "check the credentials, and the URL")


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
