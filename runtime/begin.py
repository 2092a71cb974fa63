"""How a run begins, whatever it trains: weights or a checkpoint, parallel ranks, the run's folder."""

import os
from dataclasses import dataclass, field
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
    *("data.loader", "data.in_memory", "data.on_error", "world size"),
]
# What the optimizer's state brings with it: another value would be ignored
_OF_OPTIMIZER = [
    *("training.optimizer", "training.momentum", "training.weight_decay", "training.bn_wd", "training.eps"),
    "lr.layer_decay",
]
# What may be another without being told
_FREE = (
    "logging.",
    "training.resume",
    "training.checkpoint_minutes",
    "training.eval_only",
    "dist.",
    "data.num_workers",
)


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    `folder`: the one that it goes on in, None: a new one. `generators`: their states. `refused`: checkpoints that are
    not good. `changed`: [before, now] of parameters that are not those of the checkpoint.
    """

    position: Position = Position()
    folder: Path | None = None
    generators: dict = field(default_factory=dict)
    refused: tuple[Path, ...] = ()
    changed: dict = field(default_factory=dict)


def load_state(settings, place: Place, model, optimizer, scaler, average=None) -> Start:
    """Load the weights or the checkpoint that the settings name.

    A checkpoint that is damaged or another model's is told, and the one before it is used.
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
            _check_model(content, settings, path)
        except UserError as error:
            refused[path] = error
            continue
        changed = {} if settings.training.eval_only else _changed(content, settings, place, path)
        if place.first:
            for error in refused.values():
                print(f"=> {error}: using {path.name}")
            for name, (before, now) in changed.items():
                print(f"=> {path} was made with {name}={before}, now it is {now}")
        ranks = content["ranks"]
        generators = ranks[place.rank]["generators"] if place.rank < len(ranks) else {}
        return Start(position, path.parent, generators, tuple(refused), changed)
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
    paths = [path] + [path.with_name(checkpoint.OLDER_NAME)] * (path.name == checkpoint.NAME)
    found = [p for p in paths if os.path.isfile(p)]
    if not found and (told != _AUTO or settings.training.eval_only):
        raise UserError(f"there is no file {path}", "give the path of a checkpoint.pt or of the folder of a run")
    return found


def _check_model(content: dict, settings, path: Path) -> None:
    """Raise UserError where a checkpoint is another model's, though its weights fit."""
    before, now = content["params"].get("model.arch"), settings.model.arch
    if before != now:
        raise _not_the_same(path, "model.arch", before, now)


def _changed(content: dict, settings, place: Place, path: Path) -> dict:
    """[before, now] of the parameters that have changed; raises UserError where they must not.

    The one before a checkpoint would not do either: it is of the same run.
    """
    made = content["params"] | {"world size": len(content["ranks"])}
    now = settings.flat() | {"world size": place.world_size}
    changed = {key: [made[key], now[key]] for key in now if key in made and made[key] != now[key]}
    for key in [*_OF_OPTIMIZER, *(_ORDER if content["batch"] else ())]:
        if key in changed:
            raise _not_the_same(path, key, *changed[key])
    return {key: values for key, values in changed.items() if not key.startswith(_FREE)}


def _not_the_same(path: Path, key: str, before, now) -> UserError:
    return UserError(f"{path} was made with {key}={before}, not {now}", "give the same")


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
    # Last: a model that was built or tried in between has drawn from them
    checkpoint.set_generators(start.generators)
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
    return RunFolder.reopen(start.folder, start.position, start.changed)
