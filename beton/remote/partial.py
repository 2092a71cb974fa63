"""A file of which a part is there: `.<name>.partial`, and `.<name>.ranges` with what has come of each range.

Bytes are noted once they are written, so that those of a killed process count. A power cut may lose bytes that are
noted: the SHA-256 of the whole shows it; without one, what was fetched before the machine has started is not used.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.files import partial_path, publish

RANGE = 32 << 20  # bytes that are asked for at a time


class Partial:
    """What has come of the file `path`. `rows` (int64, N x 3): first byte, end, and how many bytes are there, of each
    range; `tables`: so many of the first ones hold the tables, None as long as that is not known.
    """

    def __init__(self, path: Path, identity: dict[str, Any], tables: int | None, rows: np.ndarray):
        self.path, self.bytes = path, partial_path(path)
        self.identity, self.tables, self.rows = identity, tables, rows

    @classmethod
    def found(cls, path: Path, identity: dict[str, Any]) -> Partial | None:
        """What an earlier process has left of the file with this identity; None where there is nothing of it."""
        try:
            with open(_ranges(path), "rb") as file:
                line = file.readline()
            about = json.loads(line)
            if about["identity"] != identity or partial_path(path).stat().st_size != identity["size"]:
                return None
            rows = np.memmap(_ranges(path), "<i8", "r+", len(line)).reshape(-1, 3)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(path, identity, about["tables"], rows)

    @classmethod
    def begun(cls, path: Path, identity: dict[str, Any], head: int) -> Partial:
        """A new one, of which the first `head` bytes are to be fetched first. Raises OSError."""
        discard(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial_path(path), "wb") as file:
            file.truncate(identity["size"])
        _note(path, identity, None, [(0, min(head, identity["size"]), 0)])
        return cls.found(path, identity)

    def planned(self, tables_end: int, table_at: int) -> Partial:
        """The same file with its ranges: those of the tables at its beginning and its end, then of what is between."""
        size, have = self.identity["size"], int(self.rows[0, 2])
        tables = _ranges_of(0, tables_end, have) + _ranges_of(table_at, size, have)
        _note(self.path, self.identity, len(tables), tables + _ranges_of(tables_end, table_at, have))
        return Partial.found(self.path, self.identity)

    def in_one(self) -> Partial:
        """The same file as one range, of which nothing is there."""
        _note(self.path, self.identity, 1, [(0, self.identity["size"], 0)])
        return Partial.found(self.path, self.identity)

    @property
    def has_tables(self) -> bool:
        """Whether its tables can be read."""
        return self.tables is not None and not self.missing()[: self.tables].any()

    def missing(self) -> np.ndarray:
        """How many bytes of each range are missing."""
        return self.rows[:, 1] - self.rows[:, 0] - self.rows[:, 2]


def discard(path: Path) -> None:
    """Remove what is there of a file."""
    for name in (_ranges(path), partial_path(path)):
        with suppress(FileNotFoundError):
            os.unlink(name)


def _ranges(path: Path) -> Path:
    return path.with_name(f".{path.name}.ranges")


def _ranges_of(start: int, stop: int, have: int) -> list[tuple[int, int, int]]:
    """Ranges from `start` to `stop`; of the file's first `have` bytes are there."""
    spans = [(at, min(at + RANGE, stop)) for at in range(start, stop, RANGE)]
    return [(first, end, min(max(have - first, 0), end - first)) for first, end in spans]


def _note(path: Path, identity: dict[str, Any], tables: int | None, rows: list[tuple[int, int, int]]) -> None:
    about = json.dumps({"identity": identity, "tables": tables}) + "\n"
    publish(_ranges(path), about.encode() + np.array(rows, "<i8").tobytes())


def boot() -> str:
    """Which start of the machine this is; empty where the system does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def no_room(folder: Path, error: OSError) -> UserError:
    """The error for a folder that cannot be written."""
    return UserError(f"cannot write {folder} ({error.strerror or error})", "make room, or give another `cache`")
