"""Does a model accept images of a given size? Tested with a forward pass before the first epoch."""

import copy

import torch
from torch import nn

from beton.errors import UserError

# Raised by models and torch for images that are too small or not of the size they were built for
_REFUSALS = (AssertionError, RuntimeError, ValueError, ArithmeticError, IndexError)


def check(name: str, model: nn.Module, sizes, autocast, img_size: int | None = None) -> None:
    """Raise UserError when a model cannot take images of one of these sides (pixels).

    When it takes none at all, and was not built for `img_size`, the model itself is faulty and its own error is raised.
    """
    for size in sorted(set(sizes)):
        error = _refusal(model, size, autocast)
        if error is None:
            continue
        others = {img_size, 224, *_own(model)} - {None, size}
        if img_size is None and all(_refusal(model, other, autocast) for other in others):
            raise error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        also = " or another model.img_size" if img_size is not None else ""
        raise UserError(f"{name} cannot take images of {size} px ({reason[0][:200]})", f"give another resolution{also}")


def check_single(name: str, model: nn.Module, size: int, autocast) -> None:
    """Raise UserError when a model cannot train with batches of one image (batch norm needs two values)."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        error = _refusal(copy.deepcopy(model).train(), size, autocast, count=1)
    if isinstance(error, ValueError):
        raise UserError(f"{name} cannot train with one photo in a batch ({error})", "give training.batch_size=2")


def _refusal(model: nn.Module, size: int, autocast, count: int = 2) -> Exception | None:
    """What a model raises for images of this side, or None; the model stays unchanged."""
    training = model.training
    model.train(count == 1)
    images = torch.zeros(count, 3, size, size, device=next(model.parameters()).device)
    try:
        with torch.no_grad(), autocast:
            model.forward(images.contiguous(memory_format=torch.channels_last))  # __call__ may compile
    except _REFUSALS as error:
        # A GPU that fails says nothing about the size; both are RuntimeErrors
        if isinstance(error, (torch.cuda.OutOfMemoryError, getattr(torch, "AcceleratorError", ()))):
            raise
        return error
    finally:
        model.train(training)
    return None


def _own(model: nn.Module) -> list[int | None]:
    """Sides of images that the model declares."""
    sizes = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (None,))
    return [sizes[-1], getattr(model, "image_size", None)]
