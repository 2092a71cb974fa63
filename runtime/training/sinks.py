"""Who gets the lines of a run's log besides log.jsonl: TensorBoard, Weights & Biases. Imported when asked for.

log.jsonl is what counts: nothing is read back from a sink.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from beton.errors import UserError
from beton.files import publish

_NOT_DRAWN = ("epoch", "timestamp", "relative_time")


class Sink:
    """Opened for a run's `folder`, whose parameters are `params`; `epoch` is the first that will be logged."""

    needs: ClassVar[str]  # module and package

    def __init__(self, folder: Path, params: dict[str, Any], epoch: int):
        raise NotImplementedError

    def log(self, line: dict) -> None:
        """A line of the log."""
        raise NotImplementedError

    def close(self) -> None:
        """The run has ended."""
        raise NotImplementedError


class TensorBoard(Sink):
    """Numbers by epoch in FOLDER/tensorboard."""

    needs = "tensorboard"

    def __init__(self, folder: Path, params: dict[str, Any], epoch: int):
        from torch.utils.tensorboard import SummaryWriter

        # What a resumed run had logged of later epochs is hidden
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epoch or None)
        self._writer.add_text("params", "\n".join(f"    {name}: {value}" for name, value in params.items()), epoch)

    def log(self, line: dict) -> None:
        """Every number of the line."""
        for name, value in _numbers(line).items():
            self._writer.add_scalar(name, value, line["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases(Sink):
    """A run named as the folder, in the project that WANDB_PROJECT names; a resumed run goes on there."""

    needs = "wandb"

    def __init__(self, folder: Path, params: dict[str, Any], epoch: int):
        import wandb

        file = folder / "wandb_id"
        if not file.exists():
            publish(file, uuid4().hex)
        project = os.environ.get("WANDB_PROJECT", "ffcv-toolkit")
        try:
            self._run = wandb.init(
                project=project, id=file.read_text(), resume="allow", name=folder.name, dir=str(folder), config=params
            )
        except (wandb.Error, OSError) as error:  # no account, no network
            raise UserError(
                f"Weights & Biases does not start ({error})", "run `wandb login`, or set WANDB_MODE=offline"
            ) from None

    def log(self, line: dict) -> None:
        """Every number of the line."""
        self._run.log(_numbers(line), step=line["epoch"])

    def close(self) -> None:
        """Wait until everything is sent."""
        self._run.finish()


_SINKS: dict[str, type[Sink]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check(names: str) -> None:
    """Raise UserError for an unknown name (they are separated by commas), or a package that is not installed."""
    for name in _names(names):
        if name not in _SINKS:
            raise UserError(f"logging.sinks={name} is unknown", f"use {' or '.join(_SINKS)}")
        if importlib.util.find_spec(_SINKS[name].needs) is None:
            needs = _SINKS[name].needs
            raise UserError(f"logging.sinks={name} needs the package {needs}", f"pip install {needs}")


def open_all(names: str, folder: Path, params: dict[str, Any], epoch: int = 0) -> list[Sink]:
    """The sinks of these names."""
    return [_SINKS[name](folder, params, epoch) for name in _names(names)]


def _names(names: str) -> list[str]:
    return list(dict.fromkeys(filter(None, names.split(","))))


def _numbers(line: dict) -> dict[str, float]:
    return {
        name: value
        for name, value in line.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in _NOT_DRAWN
    }
