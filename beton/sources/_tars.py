"""Tars that are read where they lie: an index of what is in them, then single members from any thread."""

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from beton import system
from beton.errors import UserError

_BLOCK = 512  # bytes


class Member(NamedTuple):
    """A file in a tar: its name, and where in the archive its bytes are."""

    name: str
    offset: int
    size: int


def members(path: str, inner: Member | None = None) -> Iterator[Member]:
    """The ordinary files in the tar at `path`, or in the tar `inner` that is a member of it, in their order.

    Headers are read and contents passed over. Raises UserError where it is no tar, compressed, or not complete.
    """
    where = path if inner is None else f"{inner.name} in {path}"
    try:
        with open(path, "rb") as file:
            file.seek(0 if inner is None else inner.offset)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (info := tar.next()) is not None:
                    tar.members.clear()  # it would keep them all
                    if info.isreg():
                        yield Member(info.name.removeprefix("./"), info.offset_data, info.size)
                # tarfile takes damage, and the end of the file, for the end of the tar
                file.seek(tar.offset)
                whole = file.read(_BLOCK) == bytes(_BLOCK)
                whole &= inner is None or tar.offset < inner.offset + inner.size
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})", "check the file and its disk") from None
    except tarfile.TarError as error:
        what = f"{where} is no tar, or damaged ({error})"
        raise UserError(what, "fetch it again; if it is compressed, unpack it to a plain .tar") from None
    if not whole:
        raise UserError(f"{where} is damaged, or its end is missing", "fetch it again")


def read(path: str, offset: int, size: int) -> bytes:
    """`size` bytes of a file from byte `offset` on. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        content = system.read_at(file, size, offset)
    if len(content) < size:
        raise OSError(f"{path} became shorter")
    return content
