"""How a run begins, whatever it trains: weights or a checkpoint, parallel ranks, the run's folder."""

from pathlib import Path

import torch

from runtime import checkpoint, engine
from runtime.data import Data
from runtime.launch import Place
from runtime.log import RunFolder
from runtime.models import load_weights_resized


def load_state(settings, model, optimizer, scaler, average=None) -> int:
    """Load the weights or the checkpoint that the settings name; returns the number of finished epochs."""
    if settings.model.weights:
        path = Path(settings.model.weights)
        load_weights_resized(model, checkpoint.load(path), path)
        if average is not None:
            average.set(model)
    if not settings.training.resume:
        return 0
    path = _resume_path(settings)
    return checkpoint.restore(checkpoint.load(path), path, model, optimizer, scaler, average)


def parallel(model: torch.nn.Module, compiled: bool, place: Place) -> torch.nn.Module:
    """The model as it is trained: compiled if asked for, its gradients averaged over the ranks."""
    if compiled:
        model.compile()
    if place.world_size == 1:
        return model
    devices = [place.device] if place.device.type == "cuda" else None
    return torch.nn.parallel.DistributedDataParallel(model, device_ids=devices)


def run(recipe: engine.Recipe, settings, place: Place, data: Data, validation, start_epoch: int) -> None:
    """Evaluate only, or train to the end; rank 0 says what it does."""
    if settings.training.eval_only:
        stats = engine.evaluate_all(recipe, validation, place, bool(settings.validation.lr_tta))
        if place.first:
            print("=> " + " ".join(f"{name}={value:.6g}" for name, value in stats.items()))
        return
    folder = _open_folder(settings, place, start_epoch)
    if place.first:
        parameters = sum(p.numel() for p in recipe.model.parameters()) / 1e6
        print(
            f"=> {settings.model.arch}, {parameters:.1f} M parameters, {len(validation.classes)} classes, "
            f"{place.world_size} x {place.device}, {recipe.precision.name}"
        )
        print(f"=> loader {settings.data.loader}: {validation.description}")
    engine.fit(recipe, settings, place, data, validation, folder, start_epoch)


def _resume_path(settings) -> Path:
    """The checkpoint to go on from; training.resume may name the run's folder too."""
    path = Path(settings.training.resume)
    return path / "checkpoint.pt" if path.is_dir() else path


def _open_folder(settings, place: Place, start_epoch: int) -> RunFolder:
    """A new run folder, or the one that the checkpoint lies in; rank 0 alone has one."""
    if not place.first:
        return RunFolder(None)
    if settings.training.resume:
        return RunFolder.reopen(_resume_path(settings).parent, start_epoch)
    return RunFolder.create(settings.logging.folder, settings.logging.name, settings)
