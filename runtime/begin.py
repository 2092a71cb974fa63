"""How a run begins, whatever it trains: weights or a checkpoint, parallel ranks, the run's folder."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.errors import UserError
from runtime import checkpoint, engine
from runtime.checkpoint import Position
from runtime.data import Data
from runtime.launch import Place
from runtime.log import RunFolder
from runtime.models import load_weights_resized, sides

_AUTO = "auto"
# What must be the same for a position within an epoch to mean the same batches
_ORDER = [
    *("training.batch_size", "training.seed", "training.repeats", "training.accumulate"),
    *("data.in_memory", "data.on_error", "world size"),
]


@dataclass(frozen=True)
class Start:
    """Where a run begins: the position, the folder that it goes on in (None: a new one), checkpoints refused."""

    position: Position = Position()
    folder: Path | None = None
    refused: tuple[Path, ...] = ()


def load_state(settings, place: Place, model, optimizer, scaler, average=None) -> Start:
    """Load the weights or the checkpoint that the settings name.

    A checkpoint that is damaged or another run's is told, and the one before it is used.
    """
    if settings.model.weights:
        path = Path(settings.model.weights)
        load_weights_resized(model, checkpoint.load(path), path)
        if average is not None:
            average.set(model)
    if not settings.training.resume:
        return Start()
    refused: dict[Path, UserError] = {}
    for path in _checkpoints(settings):
        try:
            content = checkpoint.load(path)
            position = checkpoint.restore(content, path, place.rank, model, optimizer, scaler, average)
            _check_same_run(content, settings, place, path)
        except UserError as error:
            refused[path] = error
            continue
        for error in refused.values() if place.first else ():
            print(f"=> {error}: using {path.name}")
        return Start(position, path.parent, tuple(refused))
    if not refused:
        return Start()
    reasons = [" ".join(str(error).split()) for error in refused.values()]
    raise UserError(" and ".join(reasons), "without training.resume a run starts anew")


def _checkpoints(settings) -> list[Path]:
    """The checkpoints to go on from, the latest first."""
    told = settings.training.resume
    if told == _AUTO:
        if not settings.logging.name:
            raise UserError("training.resume=auto needs the name of the run's folder", "give logging.name")
        path = Path(settings.logging.folder) / settings.logging.name / checkpoint.NAME
    else:
        path = Path(told) / checkpoint.NAME if os.path.isdir(told) else Path(told)
    older = path.with_name(checkpoint.OLDER_NAME)
    found = [p for p in (path, older) if os.path.isfile(p) and (p == path or path.name == checkpoint.NAME)]
    if not found and (told != _AUTO or settings.training.eval_only):
        raise UserError(f"there is no file {path}", "give the path of a checkpoint.pt or of the folder of a run")
    return found


def _check_same_run(content: dict, settings, place: Place, path: Path) -> None:
    """Raise UserError where a checkpoint is another model's, or its position would mean other batches."""
    made, now = content["params"], settings.flat()
    made, now = made | {"world size": len(content["ranks"])}, now | {"world size": place.world_size}
    within_epoch = content["batch"] and not settings.training.eval_only
    for key in ["model.arch", *(_ORDER if within_epoch else ())]:
        if made.get(key) != now.get(key):
            raise UserError(f"{path} was made with {key}={made.get(key)}, not {now.get(key)}", "give the same")


def parallel(model: torch.nn.Module, compiled: bool, place: Place) -> torch.nn.Module:
    """The model as it is trained: compiled if asked for, its gradients averaged over the ranks."""
    if compiled:
        model.compile()
    if place.world_size == 1:
        return model
    devices = [place.device] if place.device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(model, device_ids=devices)


def run(recipe: engine.Recipe, settings, place: Place, data: Data, validation, start: Start) -> None:
    """Evaluate only, or train to the end; rank 0 says what it does."""
    # First what may be wrong: a run that cannot begin leaves no folder behind
    check_sides(recipe, settings, start)
    if not settings.training.eval_only and start.position.epoch < recipe.epochs:
        epoch, batch = start.position.epoch, start.position.batch
        training = data.training(epoch, recipe.resolution(epoch), batch)
        _check_classes(settings.data, training.classes, validation.classes)
    if settings.training.eval_only:
        stats = engine.evaluate_all(recipe, validation, place, bool(settings.validation.lr_tta))
        if place.first:
            print("=> " + " ".join(f"{name}={value:.6g}" for name, value in stats.items()))
        return
    folder = _open_folder(settings, place, start)
    if place.first:
        parameters = sum(p.numel() for p in recipe.model.parameters()) / 1e6
        print(
            f"=> {settings.model.arch}, {parameters:.1f} M parameters, {len(validation.classes)} classes, "
            f"{place.world_size} x {place.device}, {recipe.precision.name}"
        )
        print(f"=> loader {settings.data.loader}: {validation.description}")
    engine.fit(recipe, settings, place, data, validation, folder, start.position)


def _check_classes(data, training: list[str], validation: list[str]) -> None:
    """Raise UserError where the two data sets have other classes. Files without names have numbers, which fit any."""
    numbers = [str(number) for number in range(len(training))]
    if len(training) != len(validation):
        what = f"{data.train_dataset} has {len(training)} classes, and {data.val_dataset} has {len(validation)}"
    elif training != validation and numbers not in (training, validation):
        number = next(i for i, names in enumerate(zip(training, validation, strict=True)) if len(set(names)) > 1)
        what = f"class {number} is '{training[number]}' in {data.train_dataset}"
        what += f", and '{validation[number]}' in {data.val_dataset}"
    else:
        return
    raise UserError(what, "give two data sets of the same classes")


def check_sides(recipe: engine.Recipe, settings, start: Start) -> None:
    """Raise UserError where the model cannot take the images that it will get."""
    arch, told = settings.model.arch, [settings.validation.resolution]
    img_size = getattr(settings.model, "img_size", None)
    if not settings.training.eval_only:
        resolutions = [recipe.resolution(epoch) for epoch in range(start.position.epoch, recipe.epochs)]
        told += [min(resolutions), max(resolutions)] if resolutions else []
        if resolutions and settings.training.batch_size == 1:
            sides.check_alone(arch, recipe.model, min(resolutions), recipe.precision.autocast())
    sides.check(arch, recipe.model, told, recipe.precision.autocast(), img_size)


def _open_folder(settings, place: Place, start: Start) -> RunFolder:
    """A new run folder, or the one that the checkpoint lies in; rank 0 alone has one."""
    if not place.first:
        return RunFolder(None)
    if start.folder is None:
        again = settings.training.resume == _AUTO
        return RunFolder.create(settings.logging.folder, settings.logging.name, settings, again)
    for path in start.refused:
        # Or it would become the one before the next checkpoint, in place of the one that is used now
        os.replace(path, path.with_name(f"{path.stem}.refused.pt"))
    return RunFolder.reopen(start.folder, start.position)
