"""The folder of a run: params.json, log.jsonl (a line an epoch), checkpoint.pt, final_weights.pt."""

import json
import os
import time
from pathlib import Path
from uuid import uuid4

from pipelines.beton import publish
from pipelines.errors import UserError
from runtime import env
from runtime.checkpoint import Position


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path} ({error.strerror})", "make room, or give another logging.folder")


def _write(path: Path, text: str) -> None:
    try:
        publish(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _lines(path: Path) -> list[str]:
    """The lines of a file, if it is there."""
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})", "give another training.resume") from None


def _note_changes(path: Path, entry: dict) -> None:
    try:
        facts = json.loads("\n".join(_lines(path)))
    except ValueError:  # it is not there, or somebody's own
        facts = {}
    facts["resumed"] = [*facts.get("resumed", []), entry]
    _write(path, json.dumps(facts, indent=1) + "\n")


class RunFolder:
    """Where rank 0 writes; other ranks have none (`active` False) and everything here does nothing."""

    def __init__(self, folder: Path | None):
        self.path = folder
        self.active = folder is not None
        self._start = time.time()

    @classmethod
    def create(cls, parent: str, name: str | None, settings, again: bool = False) -> "RunFolder":
        """A new folder below `parent`, named `name` or by the time; params.json is written to it.

        `again`: it may be there, of a run that was interrupted before its first checkpoint.
        """
        name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:6]}"
        folder = Path(parent) / name
        if again and os.path.exists(folder / "final_weights.pt"):
            raise UserError(f"{folder} has final weights but no checkpoint to go on from", "give another logging.name")
        try:
            folder.mkdir(parents=True, exist_ok=again)
        except FileExistsError:
            raise UserError(f"{folder} exists already", "give another logging.name, or training.resume") from None
        except OSError as error:
            raise UserError(f"cannot make {folder} ({error.strerror})", "give another logging.folder") from None
        facts = {
            "params": settings.flat(),
            "origin": settings.origin,
            "versions": env.versions(),
            "machine": env.machine(),
        }
        _write(folder / "params.json", json.dumps(facts, indent=1) + "\n")
        if again:
            _write(folder / "log.jsonl", "")
        print(f"=> Logging in {folder}" + (", which has no checkpoint: starting anew" if again else ""))
        return cls(folder)

    @classmethod
    def reopen(cls, folder: Path, position: Position, changed: dict) -> "RunFolder":
        """The folder of an interrupted run, its log cut back to the epochs that `position` has finished.

        `changed` ([before, now] of parameters) is added to `resumed` in params.json.
        """
        log = folder / "log.jsonl"
        kept = []
        for line in _lines(log):
            try:
                if json.loads(line)["epoch"] < position.epoch:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                break  # the line that the interruption cut off
        _write(log, "".join(kept))
        if changed:
            _note_changes(
                folder / "params.json", {"epoch": position.epoch, "batch": position.batch, "changed": changed}
            )
        print(f"=> Going on in {folder} after {position.epoch} epochs and {position.batch} batches")
        return cls(folder)

    def log(self, line: dict) -> None:
        """Append a line to log.jsonl and print the gist of it."""
        if not self.active:
            return
        now = time.time()
        line = {"timestamp": now, "relative_time": now - self._start, **line}
        try:
            with open(self.path / "log.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())  # the checkpoint after it is on the disk too
        except OSError as error:
            raise _unwritable(self.path / "log.jsonl", error) from None
        shown = (
            "epoch",
            "res",
            "train_loss",
            "val_loss",
            "top_1",
            "top_5",
            "train_time",
            "wait_time",
            "val_time",
            "left_out",
        )
        gist = [f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k in shown if (v := line.get(k)) is not None]
        print("=> " + " ".join(gist), flush=True)
