"""Weights and checkpoints: written aside and renamed, loaded without executing code from them."""

import os
import pickle
from pathlib import Path

import torch

from pipelines.errors import UserError

_VERSION = 1


def save(content: dict, path: Path) -> None:
    """Write a dict of tensors and plain values; a reader sees the old file or the new one, never half."""
    aside = path.with_name(f".{path.name}.partial")
    with open(aside, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def load(path: Path) -> dict:
    """Read what `save` wrote, onto the CPU; raises UserError when the file is missing, damaged or foreign."""
    if not path.is_file():
        raise UserError(f"there is no file {path}", "give the path of a checkpoint.pt or of weights")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot load {path} ({reason})", "give another checkpoint") from None


def capture(epoch: int, model, optimizer, scaler, params: dict, average=None) -> dict:
    """All that training needs to go on after `epoch` finished epochs.

    `params`: the run's parameters; `average`: the moving average of the weights, where there is one.
    """
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    return {
        "version": _VERSION,
        "epoch": epoch,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "generators": generators,
        "params": params,
        "average": None if average is None else average.state_dict(),
    }


def restore(content: dict, path: Path, model, optimizer, scaler, average=None) -> int:
    """Put a captured state back; returns the number of finished epochs. Raises UserError when it does not fit."""
    if content.get("version") != _VERSION or "optimizer" not in content:
        raise UserError(f"{path} is not a checkpoint of this program", "give a checkpoint.pt")
    load_weights(model, content["model"], path)
    try:
        optimizer.load_state_dict(content["optimizer"])
    except ValueError as error:
        raise UserError(f"{path} belongs to another optimizer ({error})", "resume with the same recipe") from None
    if average is not None:
        if content["average"] is None:
            raise UserError(f"{path} has no moving average of the weights", "resume with the same recipe")
        load_weights(average, content["average"], path)
    scaler.load_state_dict(content["scaler"])
    torch.set_rng_state(content["generators"]["cpu"])
    if torch.cuda.is_available() and "cuda" in content["generators"]:
        torch.cuda.set_rng_state(content["generators"]["cuda"])
    return content["epoch"]


def load_weights(model, weights: dict, path: Path) -> None:
    """Load weights (or a whole checkpoint) into a model; raises UserError when they are another model's."""
    try:
        model.load_state_dict(weights.get("model", weights))
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the weights in {path} do not fit the model ({reason})", "give the same model.arch") from None
