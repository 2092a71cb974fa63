"""Loads weights into the same model for another image size or number of classes, for fine-tuning."""

import math
from pathlib import Path

import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from beton.errors import UserError
from runtime.training import checkpoint


def load_weights_resized(model: nn.Module, weights: dict, path: Path, other_classes: bool = True) -> None:
    """Load weights (or a whole checkpoint) into a model of another image size or number of classes.

    Position embeddings are resampled as in timm (bicubic, antialiased). A head of another shape keeps its initial
    values, and its name is printed; without `other_classes` it is an error. Raises UserError for what does not fit.
    """
    weights = weights.get("model", weights)
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{path} holds no weights, or more than weights", "give a final_weights.pt or checkpoint.pt")
    weights, fresh = _fitted(model, weights)
    if fresh and not other_classes:
        what = f"the weights in {path} are for another number of classes ({', '.join(fresh)} differs)"
        raise UserError(what, "evaluate with a data set of the classes that they were trained on")
    checkpoint.load_weights(model, weights, path)
    if fresh:
        print(f"=> weights from {path}; initialised for another number of classes: {', '.join(fresh)}")


def _fitted(model: nn.Module, weights: dict) -> tuple[dict, list[str]]:
    """The weights in the shapes of the model, and the names of those that keep their initial values."""
    own, heads = model.state_dict(), _heads(model)
    fitted, fresh = dict(weights), []
    for name in own:
        if name not in weights or weights[name].shape == own[name].shape:
            continue
        if name.split(".")[-1] in ("pos_embed", "pos_embedding"):
            fitted[name] = _resampled(weights[name], own[name], _grid(model))
        elif name.rpartition(".")[0] in heads:
            fitted[name] = own[name]
            fresh.append(name)
    return fitted, fresh


def _resampled(old: torch.Tensor, new: torch.Tensor, grid: tuple[int, int] | None) -> torch.Tensor:
    """1 x (P + H x W) x D for the grid of `new`; unchanged when the tokens of `old` are not P + a square."""
    if grid is None or old.ndim != 3 or new.ndim != 3:
        return old
    prefix = new.shape[1] - grid[0] * grid[1]
    count = old.shape[1] - prefix
    if count < 1 or math.isqrt(count) ** 2 != count:
        return old
    return resample_abs_pos_embed(old, new_size=list(grid), num_prefix_tokens=prefix)


def _grid(model: nn.Module) -> tuple[int, int] | None:
    """Patches down and across an image, of timm's and torchvision's ViTs."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if grid is None and hasattr(model, "image_size") and hasattr(model, "patch_size"):
        grid = (model.image_size // model.patch_size,) * 2
    return grid


def _heads(model: nn.Module) -> list[str]:
    """Names of the classification layers: those that timm declares, else the last linear one."""
    named = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    if named:
        return [named] if isinstance(named, str) else list(named)
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1:]
