"""The state in which a run starts: initial weights, or a checkpoint and which settings may differ from its own."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from beton.errors import UserError
from runtime.launch import Rank
from runtime.training import checkpoint
from runtime.training.checkpoint import Position
from runtime.training.models import load_weights_resized

AUTO = "auto"
# Must be equal for a position within an epoch to mean the same batches
_ORDER = [
    *("training.seed", "training.repeats", "training.accumulate"),
    *("data.loader", "data.in_memory", "data.on_error"),
]
# Restored with the optimizer's state: another value would have no effect
_OF_OPTIMIZER = [
    *("training.optimizer", "training.momentum", "training.weight_decay", "training.bn_wd", "training.eps"),
    "lr.layer_decay",
]
# Settings that may change on resume without notice
_UNREPORTED = (
    *("logging.", "training.resume", "training.checkpoint_minutes", "training.eval_only", "dist.", "data.num_workers"),
    "training.global_batch_size",
)


@dataclass(frozen=True)
class Start:
    """Where a run starts.

    `folder`: the run folder that is continued, or None for a new one. `generators`: states of the random generators.
    `refused`: checkpoints that could not be used. `changed`: setting -> [value in the checkpoint, value now].
    `classes`: names of the classes that the weights are for, None where that is unknown or does not matter.
    """

    position: Position = Position()
    folder: Path | None = None
    generators: dict = field(default_factory=dict)
    refused: tuple[Path, ...] = ()
    changed: dict = field(default_factory=dict)
    classes: list[str] | None = None


def load_state(settings, rank: Rank, model, optimizer, scaler, average=None) -> Start:
    """Load the weights or the checkpoint that the settings name.

    When a checkpoint is damaged or of another model, this is reported and the previous one is used.
    """
    classes = None
    if settings.model.weights:
        path = Path(settings.model.weights)
        weights = checkpoint.load(path)
        # To evaluate a head of initial values would be wrong; to train one is fine-tuning
        load_weights_resized(model, weights, path, other_classes=not settings.training.eval_only)
        if average is not None:
            average.set(model)
        classes = checkpoint.classes_of(weights, path) if settings.training.eval_only else None
    if not settings.training.resume:
        return Start(classes=classes)
    refused: dict[Path, UserError] = {}
    for path in _checkpoints(settings):
        try:
            content = checkpoint.load(path)
            position = checkpoint.restore(content, path, rank.rank, model, optimizer, scaler, average, rank.world_size)
            _check_model(content, settings, path)
        except UserError as error:
            refused[path] = error
            continue
        changed = {} if settings.training.eval_only else _changed(content, settings, rank, path)
        if rank.first:
            for error in refused.values():
                print(f"=> {error}: using {path.name}")
            for name, (before, now) in changed.items():
                print(f"=> {path} was made with {name}={before}, now it is {now}")
        ranks = content["ranks"]
        generators = ranks[rank.rank]["generators"] if rank.rank < len(ranks) else {}
        return Start(position, path.parent, generators, tuple(refused), changed, checkpoint.classes_of(content, path))
    if not refused:
        return Start()
    reasons = [" ".join(str(error).split()) for error in refused.values()]
    raise UserError(" and ".join(reasons), "omit training.resume to start from the beginning")


def _checkpoints(settings) -> list[Path]:
    """The checkpoints to resume from, the latest first."""
    resume = settings.training.resume
    if resume == AUTO:
        if not settings.logging.name:
            raise UserError("training.resume=auto needs the name of the run's folder", "give logging.name")
        path = Path(settings.logging.folder) / settings.logging.name / checkpoint.NAME
    else:
        path = Path(resume) / checkpoint.NAME if os.path.isdir(resume) else Path(resume)
    paths = [path] + [path.with_name(checkpoint.OLDER_NAME)] * (path.name == checkpoint.NAME)
    found = [p for p in paths if os.path.isfile(p)]
    if not found and (resume != AUTO or settings.training.eval_only):
        raise UserError(f"there is no file {path}", "give the path of a checkpoint.pt or of the folder of a run")
    return found


def _check_model(content: dict, settings, path: Path) -> None:
    """Raise UserError when a checkpoint is of another model although its weights fit."""
    before, now = content["params"].get("model.arch"), settings.model.arch
    if before != now:
        raise _differs(path, "model.arch", before, now)


def _changed(content: dict, settings, rank: Rank, path: Path) -> dict:
    """[before, now] of the settings that have changed; raises UserError for those that must not.

    The previous checkpoint would not help: it is of the same run.
    """
    before = content["params"] | {"world size": len(content["ranks"])}
    now = settings.flat() | {"world size": rank.world_size}
    changed = {key: [before[key], now[key]] for key in now if key in before and before[key] != now[key]}
    if content["batch"]:
        _check_batch(before, now, path)
    for key in [*_OF_OPTIMIZER, *(_ORDER if content["batch"] else ())]:
        if key in changed:
            raise _differs(path, key, *changed[key])
    return {key: values for key, values in changed.items() if not key.startswith(_UNREPORTED)}


def _check_batch(before: dict, now: dict, path: Path) -> None:
    """Raise UserError unless a batch has as many photos over all ranks as before: then it has the same photos."""
    size, ranks = "training.batch_size", "world size"
    if before[size] * before[ranks] == now[size] * now[ranks]:
        return
    if before[ranks] == now[ranks]:
        raise _differs(path, size, before[size], now[size])
    of_all = before[size] * before[ranks]
    what = f"{path} was made with {before[ranks]} x {size}={before[size]}, not {now[ranks]} x {now[size]}"
    to_do = f"give training.global_batch_size={of_all}"
    raise UserError(what, to_do if of_all % now[ranks] == 0 else f"{to_do}, and a number of ranks that divides it")


def _differs(path: Path, key: str, before, now) -> UserError:
    return UserError(f"{path} was made with {key}={before}, not {now}", f"give {key}={before}")
