"""The journal of a write: what its partial file holds so far, so that an interrupted write can be resumed.

A line for each step, its JSON behind a CRC-32 that runs on from line to line. So it is known how far the
journal is whole, whatever a kill or a power cut has made of its end.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from beton import system


def journal_path(path: Path) -> Path:
    """Where the journal lies until the file `path` is complete."""
    return path.with_name(f".{path.name}.journal")


class NoJournal:
    """For a write that nobody will resume."""

    is_empty = False

    def truncate(self) -> None:
        """Nothing is kept."""

    add = flush = close = lambda self, *step: None


class Journal:
    """The steps of one write, on disk; close() it."""

    def __init__(self, path: Path):
        self._file = system.open_to_update(path)
        self._check = self._end = 0  # the CRC-32 and the length of what is accepted

    @property
    def is_empty(self) -> bool:
        """Whether no step is accepted."""
        return self._end == 0

    def steps(self) -> Iterator:
        """What an earlier process has added, as far as it is whole. Asking for the next step accepts the last."""
        for line in self._file:
            check, _, text = line[:-1].partition(b" ")
            crc = zlib.crc32(text, self._check)
            if not line.endswith(b"\n") or check != b"%08x" % crc:
                return
            yield json.loads(text)
            self._check, self._end = crc, self._end + len(line)

    def truncate(self) -> None:
        """Drop all that is not accepted; must precede add()."""
        self._file.truncate(self._end)
        self._file.seek(self._end)

    def add(self, step) -> None:
        """Append a step; once flush() returns, the death of the process does not lose it."""
        text = json.dumps(step).encode()
        check = zlib.crc32(text, self._check)
        self._file.write(b"%08x %b\n" % (check, text))
        self._check, self._end = check, self._end + len(text) + 10

    def flush(self) -> None:
        """Give the system all that has been added."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()
