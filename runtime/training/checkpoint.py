"""Weights and checkpoints: written to a temporary file and renamed, read without executing code from them.

A file is torch's zip archive with its own SHA-256 as the archive's comment, so that damage is detected before
anything is read from it. (torch itself ignores the checksums of an archive.)
"""

import hashlib
import json
import os
import pickle
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from beton.errors import UserError
from beton.system import sync_folder
from runtime.training import formats, optim

NAME, OLDER_NAME = "checkpoint.pt", "checkpoint.old.pt"
_KEYS = {"epoch", "batch", "ranks", "model", "optimizer", "scaler", "params", "average"}
_MARK = b"sha256:"
# The last bytes of a file: length of the comment (two bytes), comment
_TAIL = 2 + len(_MARK) + 64
# What torch raises for a damaged archive without a SHA-256 (from elsewhere)
_UNREADABLE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
    MemoryError, AssertionError, struct.error, pickle.UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Position:
    """Progress of a run: `epoch` finished epochs and `batch` batches of the next one.

    `sums` (runtime/training/engine.py, EpochSums) is what this rank has accumulated in the unfinished epoch.
    """

    epoch: int = 0
    batch: int = 0
    sums: dict | None = None


class _Hashing:
    """A writable file that computes the SHA-256 of what is written."""

    def __init__(self, file):
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def save(content: dict, path: Path, keep: Path | None = None) -> None:
    """Write a dict of tensors and plain values; a reader sees the old file or the new one, never a part.

    `keep`: the path to which the old file is renamed.
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
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError when the disk is full
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot write {path} ({reason})", "free some space, or give another folder") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def _keep(path: Path, older: Path) -> None:
    """Link a file to a second name, so that there is a file under its first name at all times."""
    aside = older.with_name(f".{older.name}.partial")
    with suppress(OSError):
        aside.unlink()
    try:
        os.link(path, aside)
    except OSError:  # a file system without hard links
        aside = path
    os.replace(aside, older)


def load(path: Path) -> dict:
    """Read weights or a checkpoint onto the CPU; raises UserError when the file is missing, damaged or neither.

    A checkpoint of an older version is returned in the present one.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no file {path}", "give the path of a checkpoint.pt or of weights")
    try:
        if not _is_as_written(path):
            raise UserError(f"{path} is damaged (its SHA-256 differs)", "give another checkpoint")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch's message explains how to run code in it
            reason = "it is damaged, or holds more than tensors and plain values"
        raise UserError(f"cannot load {path} ({reason})", "give another checkpoint") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no weights", "give another checkpoint")
    return formats.upgraded_checkpoint(content)


def _is_as_written(path: Path) -> bool:
    """False for a file that `save` wrote and that has changed since; True for files from elsewhere, too."""
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
    """States of this rank's random generators. (Mixup, order and augmentations depend on seeds alone.)"""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: dict) -> None:
    """Restore states from generators(); {} leaves them unchanged."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def capture(
    position: Position, ranks: list[dict], params: dict, classes: list[str], model, optimizer, scaler, average=None
) -> dict:
    """The content of a checkpoint: all that is needed to resume training at `position`.

    `ranks`: `generators` and `sums` of each rank; `params`: the run's parameters; `classes`: their names; `average`:
    the moving average of the weights, or None.
    """
    return {
        "version": formats.CHECKPOINT,
        "epoch": position.epoch,
        "batch": position.batch,
        "ranks": ranks,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "params": params,
        "classes": classes,
        "average": None if average is None else average.state_dict(),
    }


def restore(
    content: dict, path: Path, rank: int, model, optimizer, scaler, average=None, world_size: int | None = None
) -> Position:
    """Restore a captured state and return the position. Raises UserError when it does not fit.

    `world_size`: the number of ranks now (default: as there were).
    The random generators are not restored: call set_generators() when nothing else draws before the first batch.
    """
    if content.get("version") != formats.CHECKPOINT or not content.keys() >= _KEYS:
        raise UserError(f"{path} is not a checkpoint that this version can resume", "give a checkpoint.pt")
    load_weights(model, content["model"], path)
    try:
        optim.load_state(optimizer, content["optimizer"])
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
    return Position(content["epoch"], content["batch"], _sums_of(content["ranks"], rank, world_size))


def _sums_of(ranks: list[dict], rank: int, world_size: int | None) -> dict | None:
    """What a rank has accumulated in the unfinished epoch: where the number of ranks has changed, an equal part of what
    all have, since they make equal numbers of equal steps; and rank 0's times."""
    sums = [each["sums"] for each in ranks]
    if world_size in (None, len(ranks)) or None in sums:
        return sums[rank] if rank < len(sums) else None
    photos = sum(each["photos"] for each in sums) // world_size
    loss = sum(each["loss"] for each in sums) / world_size
    left_out = sorted(set().union(*(each["left_out"] for each in sums)))
    times = sums[0]["times"] | {"images": photos}
    return sums[0] | {"loss": loss, "photos": photos, "left_out": left_out, "times": times}


def classes_path(path: Path) -> Path:
    """Where the names of the classes lie that weights in `path` are for."""
    return path.with_suffix(".classes.json")


def classes_of(content: dict, path: Path) -> list[str] | None:
    """Names of the classes of a checkpoint, or of weights, that were loaded from `path`; None where unknown."""
    if isinstance(content.get("classes"), list):
        return content["classes"]
    try:
        names = json.loads(classes_path(path).read_text())
    except (OSError, ValueError):
        return None
    return names if isinstance(names, list) else None


def load_weights(model, weights: dict, path: Path) -> None:
    """Load weights (or a whole checkpoint) into a model; raises UserError when they are another model's."""
    try:
        model.load_state_dict(weights.get("model", weights))
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the weights in {path} do not fit the model ({reason})", "give the same model.arch") from None
