"""The folder of a run: params.json, log.jsonl (a line for each epoch), checkpoint.pt, best_ and final_weights.pt."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from beton.errors import UserError
from beton.files import publish
from runtime import machine
from runtime.training import formats
from runtime.training.checkpoint import Position
from runtime.training.sinks import Sink

_PRINTED = (
    *("epoch", "res", "train_loss", "val_loss", "top_1", "top_5", "mean_ap"),
    *("train_time", "wait_time", "images_per_second", "val_time", "gpu_memory_bytes", "left_out", "best"),
)
_OF_BEST = ("top_1", "ema_top_1", "mean_ap", "ema_mean_ap")


class RunFolder:
    """Where rank 0 writes; the other ranks have none, and all methods do nothing there."""

    def __init__(self, folder: Path | None, lines: Iterable[dict] = ()):
        self.path = folder
        self.sinks: list[Sink] = []  # what gets the lines of the log, too
        self._start = time.time()
        self._best: dict[str, float] = {}  # accuracies of the lines so far
        for line in lines:
            self.best(line)

    @classmethod
    def create(cls, parent: str, name: str | None, settings, auto: bool = False) -> "RunFolder":
        """A new folder below `parent`, named `name` or by the time, with a params.json.

        `auto`: it may exist, from a run that was interrupted before its first checkpoint.
        """
        folder = Path(parent) / (name or new_name())
        if auto and os.path.exists(folder / "final_weights.pt"):
            raise UserError(f"{folder} has final weights but no checkpoint to resume from", "give another logging.name")
        try:
            folder.mkdir(parents=True, exist_ok=auto)
        except FileExistsError:
            raise UserError(f"{folder} exists already", "give another logging.name, or training.resume") from None
        except OSError as error:
            raise UserError(f"cannot make {folder} ({error.strerror})", "give another logging.folder") from None
        params = {"format": formats.RUN_FOLDER, "params": settings.flat(), "origin": settings.origin}
        params |= {"versions": machine.versions(), "machine": machine.facts()}
        _write_json(folder / "params.json", params)
        if auto:
            _write(folder / "log.jsonl", "")
        print(f"=> Logging in {folder}" + (", which has no checkpoint: starting from the beginning" if auto else ""))
        return cls(folder)

    @classmethod
    def reopen(cls, folder: Path, position: Position, changed: dict) -> "RunFolder":
        """The folder of an interrupted run; its log is cut back to the epochs that are finished at `position`.

        `changed` (setting -> [before, now]) is added to `resumed` in params.json.
        """
        kept = []
        for line in _lines(folder / "log.jsonl"):
            try:
                entry = json.loads(line)
                if entry["epoch"] < position.epoch:
                    kept.append(entry)
            except (ValueError, KeyError, TypeError):
                break  # the line that the interruption truncated
        before = _params(folder / "params.json")
        params, kept = formats.upgraded_run(before, kept)
        if changed:
            entry = {"epoch": position.epoch, "batch": position.batch, "changed": changed}
            params = params | {"resumed": [*params.get("resumed", []), entry]}
        _write(folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in kept))
        if params != before:
            _write_json(folder / "params.json", params)
        print(f"=> Resuming {folder} after {position.epoch} epochs and {position.batch} batches")
        return cls(folder, kept)

    def best(self, line: dict) -> list[str]:
        """Which of the line's metrics in _OF_BEST are higher than all before it, which is kept in mind."""
        if self.path is None:
            return []
        better = [name for name in _OF_BEST if name in line and line[name] > self._best.get(name, -1.0)]
        self._best |= {name: line[name] for name in better}
        return better

    def close(self) -> None:
        """Close the sinks."""
        for sink in self.sinks:
            sink.close()

    def epochs(self) -> list[dict]:
        """The lines of the log; [] where there is no folder."""
        lines = [] if self.path is None else _lines(self.path / "log.jsonl")
        return [json.loads(line) for line in lines]

    def log(self, line: dict) -> None:
        """Append a line to log.jsonl and print its main values."""
        if self.path is None:
            return
        now = time.time()
        line = {"timestamp": now, "relative_time": now - self._start, **line}
        try:
            with open(self.path / "log.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())  # the checkpoint written next is synced, too
        except OSError as error:
            raise _unwritable(self.path / "log.jsonl", error) from None
        for sink in self.sinks:
            sink.log(line)
        values = {name: line[name] for name in _PRINTED if line.get(name) is not None}
        values |= {"best": ",".join(line["best"])} if "best" in line else {}
        texts = (f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
        print("=> " + " ".join(texts), flush=True)


def new_name() -> str:
    """A name for a run that has none: the time, and six letters by which runs of a second differ."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:6]}"


def _params(path: Path) -> dict:
    try:
        params = json.loads("\n".join(_lines(path)))
    except ValueError:  # missing, or not ours
        return {}
    return params if isinstance(params, dict) else {}


def _lines(path: Path) -> list[str]:
    """The lines of a file; [] when there is none."""
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})", "give another training.resume") from None


def _write_json(path: Path, content: dict) -> None:
    _write(path, json.dumps(content, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        publish(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path} ({error.strerror})", "free some space, or give another logging.folder")
