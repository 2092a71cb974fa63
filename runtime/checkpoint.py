"""Weights and checkpoints: written aside and renamed, read without executing code from them.

A file is torch's zip archive with a SHA-256 of it as the archive's comment, so that damage is noticed before
anything is read from it. (torch itself does not look at the checksums of an archive.)
"""

import hashlib
import os
import pickle
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.beton import sync_folder
from pipelines.errors import UserError

NAME, OLDER_NAME = "checkpoint.pt", "checkpoint.old.pt"
_VERSION = 2
_KEYS = {"epoch", "batch", "ranks", "model", "optimizer", "scaler", "params", "average"}
_MARK = b"sha256:"
# The last bytes of a file: length of the comment (two bytes), comment
_TAIL = 2 + len(_MARK) + 64
# What a damaged archive without a SHA-256 (from elsewhere) makes torch raise
_UNREADABLE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    MemoryError, AssertionError, struct.error, pickle.UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Position:
    """Where a run stands: `epoch` epochs are finished, and `batch` batches of the next.

    `sums` are what that next epoch has gathered: loss, photos, times, samples left out (of this rank).
    """

    epoch: int = 0
    batch: int = 0
    sums: dict | None = None


class _Hashing:
    """A file to write to that keeps the SHA-256 of what was written."""

    def __init__(self, file):
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def save(content: dict, path: Path, keep: Path | None = None) -> None:
    """Write a dict of tensors and plain values; a reader sees the old file or the new one, never half.

    `keep`: where the old file goes.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        with open(aside, "wb") as file:
            hashing = _Hashing(file)
            torch.save(content, hashing)
            comment = _MARK + hashing.sha256.hexdigest().encode()
            file.seek(-2, os.SEEK_END)  # an archive without a comment ends with its length, 0
            file.write(len(comment).to_bytes(2, "little") + comment)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            _keep(path, keep)
        os.replace(aside, path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot write {path} ({reason})", "make room, or give another folder") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def _keep(path: Path, older: Path) -> None:
    """Give a file a second name, so that there is a file under its first at all times."""
    aside = older.with_name(f".{older.name}.partial")
    with suppress(OSError):
        aside.unlink()
    try:
        os.link(path, aside)
    except OSError:  # a file system without hard links
        aside = path
    os.replace(aside, older)


def load(path: Path) -> dict:
    """Read weights or a checkpoint onto the CPU; raises UserError when the file is missing, damaged or foreign."""
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path}", "give the path of a checkpoint.pt or of weights")
    try:
        if not _is_as_written(path):
            raise UserError(f"{path} is damaged (its SHA-256 is another)", "give another checkpoint")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's words are how to run the code in it
            reason = "it is damaged, or holds more than tensors and plain values"
        raise UserError(f"cannot load {path} ({reason})", "give another checkpoint") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no weights", "give another checkpoint")
    return content


def _is_as_written(path: Path) -> bool:
    """False for a file that `save` wrote and that has changed since; True too for files from elsewhere."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(size - _TAIL, 0))
        mark = file.read()[2 : 2 + len(_MARK)]
        if mark != _MARK:
            return True
        file.seek(-64, os.SEEK_END)
        expected = file.read()
        file.seek(0)
        sha256, rest = hashlib.sha256(), size - _TAIL
        while rest:
            block = file.read(min(rest, 1 << 20))
            sha256.update(block)
            rest -= len(block)
    sha256.update(bytes(2))
    return sha256.hexdigest().encode() == expected


def generators() -> dict:
    """The state of this rank's generators. (Mixup, the order and the augmentations draw from seeds alone.)"""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: dict) -> None:
    """Put states of generators() back; {} leaves them as they are."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def capture(position: Position, ranks: list[dict], params: dict, model, optimizer, scaler, average=None) -> dict:
    """All that training needs to go on after `position`.

    `ranks`: the `generators` and `sums` of each; `params`: the run's parameters; `average`: the moving average
    of the weights, where there is one.
    """
    return {
        "version": _VERSION,
        "epoch": position.epoch,
        "batch": position.batch,
        "ranks": ranks,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "params": params,
        "average": None if average is None else average.state_dict(),
    }


def restore(content: dict, path: Path, rank: int, model, optimizer, scaler, average=None) -> Position:
    """Put a captured state back; returns the position. Raises UserError when it does not fit.

    The generators are not among it: set_generators() is for when nothing else draws before the first batch.
    """
    if content.get("version") != _VERSION or not content.keys() >= _KEYS:
        raise UserError(f"{path} is not a checkpoint of this version of this program", "give a checkpoint.pt")
    load_weights(model, content["model"], path)
    try:
        optimizer.load_state_dict(content["optimizer"])
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} belongs to another optimizer ({error})", "resume with the same recipe") from None
    if average is not None:
        if content["average"] is None:
            raise UserError(f"{path} has no moving average of the weights", "resume with the same recipe")
        load_weights(average, content["average"], path)
    try:
        scaler.load_state_dict(content["scaler"])
    except RuntimeError:
        raise UserError(f"{path} was made with another training.precision", "resume with the same recipe") from None
    ranks = content["ranks"]
    return Position(content["epoch"], content["batch"], ranks[rank]["sums"] if rank < len(ranks) else None)


def load_weights(model, weights: dict, path: Path) -> None:
    """Load weights (or a whole checkpoint) into a model; raises UserError when they are another model's."""
    try:
        model.load_state_dict(weights.get("model", weights))
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the weights in {path} do not fit the model ({reason})", "give the same model.arch") from None
