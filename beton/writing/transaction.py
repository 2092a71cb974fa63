"""A file that appears whole, with its card, or not at all; what is left of an interrupted write, and who may write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from beton import system
from beton.errors import UserError
from beton.files import partial_path
from beton.format.card import card_path, card_text
from beton.format.file import BetonFile
from beton.writing.journal import journal_path


@contextmanager
def locked(path: Path, keep: bool) -> Iterator[IO[bytes]]:
    """The partial file of `path`, open and locked. After an error or a signal it goes, unless it is to be kept."""
    aside = partial_path(path)
    with system.open_to_update(aside) as file:
        _lock(file, aside, path)
        try:
            yield file
        except BaseException:
            finish_card(file, path)
            if _is_published(file, path) or not keep:
                drop_leftovers(path)
            raise


def _lock(file: IO[bytes], partial: Path, path: Path) -> None:
    with suppress(FileNotFoundError):
        # Another process may have published or removed the file between our opening and locking it
        if system.lock(file) and os.path.samestat(os.fstat(file.fileno()), os.stat(partial)):
            return
    raise UserError(f"{path} is being written by another process", "wait for it to end")


def publish(path: Path, card: dict | None) -> None:
    """Give the partial file and its card, if there is one, their names. A kill at any point leaves what finish_card()
    mends."""
    target = card_path(path)
    if card is not None:
        _write_aside(target, card_text(card))
    target.unlink(missing_ok=True)  # never an old card beside a new file
    os.replace(partial_path(path), path)
    with suppress(FileNotFoundError):  # another process may begin now, and finish this
        os.replace(partial_path(target), target)
    system.sync_folder(path.parent)
    journal_path(path).unlink(missing_ok=True)


def _write_aside(path: Path, content: str) -> None:
    with open(partial_path(path), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # or a power cut might leave its name without its content


def finish_card(file: IO[bytes], path: Path) -> None:
    """Rename the card that lies aside if its file has been published and a kill came in between; else drop it."""
    target = card_path(path)
    aside = partial_path(target)
    if not aside.exists():
        return
    # The partial file of the write that was killed is gone then: ours is new and empty
    empty = os.fstat(file.fileno()).st_size == 0
    if _is_published(file, path) or (empty and card_of(path, aside)):
        os.replace(aside, target)
    aside.unlink(missing_ok=True)


def card_of(path: Path, card_at: Path) -> dict | None:
    """The card at `card_at`, if it is that of a complete file `path`, by the checksum of the tables."""
    try:
        with BetonFile(path, card_at) as file:
            return file.card if file.checksums is not None else None
    except UserError:
        return None


def drop_leftovers(path: Path) -> None:
    """Remove the partial file and the journal."""
    journal_path(path).unlink(missing_ok=True)
    partial_path(path).unlink(missing_ok=True)


def _is_published(file: IO[bytes], path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))
