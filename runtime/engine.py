"""Training by a recipe, and evaluation. ResNets and transformers train with these."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from timm.models import model_parameters
from timm.utils import dispatch_clip_grad
from torch import nn
from torchmetrics import MeanMetric, MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy
from tqdm import tqdm

from pipelines.errors import UserError
from runtime import checkpoint
from runtime.clock import EpochClock
from runtime.data import Data
from runtime.launch import Place
from runtime.log import RunFolder
from runtime.precision import Precision


@dataclass
class Recipe:
    """What is trained, and how: all that `fit` needs besides the data.

    `model` is the plain model that is saved, `network` the same as it is trained (compiled, parallel).
    `objective(images, labels)` is the loss of a batch, `eval_loss(outputs, labels)` that of validation.
    `lrs(epoch, iterations)` gives the learning rate of each iteration, `resolution(epoch)` the side of the
    images. `accumulate` batches make a step; gradients are clipped to `clip` by `clip_mode` (timm's norm,
    value or agc). `average` is the moving average of the weights (timm's ModelEmaV3), if there is one.
    `start_epoch(epoch)` is called before each epoch.
    """

    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    objective: Callable
    eval_loss: Callable
    lrs: Callable[[int, int], np.ndarray]
    resolution: Callable[[int], int]
    epochs: int
    precision: Precision
    scaler: torch.amp.GradScaler
    accumulate: int = 1
    clip: float | None = None
    clip_mode: str = "norm"
    average: nn.Module | None = None
    evaluate_average: bool = False
    start_epoch: Callable[[int], None] = lambda epoch: None


def fit(recipe: Recipe, settings, place: Place, data: Data, validation, folder: RunFolder, start_epoch: int) -> None:
    """Train from `start_epoch` to the end: a log line and a checkpoint an epoch, the weights at the end."""
    for epoch in range(start_epoch, recipe.epochs):
        recipe.start_epoch(epoch)
        res = recipe.resolution(epoch)
        loader = data.training(epoch, res)
        line = train_epoch(recipe, loader, epoch, place, settings.logging.log_level > 1)
        if settings.logging.log_level > 0 or epoch == recipe.epochs - 1:
            line |= evaluate_all(recipe, validation, place, bool(settings.validation.lr_tta))
        about = {"loader": settings.data.loader, "precision": recipe.precision.name}
        folder.log({"epoch": epoch, "res": res, **about, **line})
        if place.first:
            state = checkpoint.capture(
                epoch + 1, recipe.model, recipe.optimizer, recipe.scaler, settings.flat(), recipe.average
            )
            checkpoint.save(state, folder.path / "checkpoint.pt")
    data.close()
    if place.first:
        save_weights(recipe.model, folder.path / "final_weights.pt")
        if recipe.average is not None and recipe.evaluate_average:
            save_weights(recipe.average.module, folder.path / "final_ema_weights.pt")


def save_weights(model: nn.Module, path: Path) -> None:
    """Save weights as they load into the plain model."""
    checkpoint.save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, path)
    print(f"=> Weights in {path}")


def train_epoch(recipe: Recipe, loader, epoch: int, place: Place, show_loss: bool = False) -> dict:
    """Train one epoch. Returns train_loss (mean over the photos of all ranks), lr (the last one) and the
    clock's facts. Raises UserError when the loss is not finite at the end."""
    recipe.network.train()
    clock = EpochClock(place.device)
    losses = MeanMetric(sync_on_compute=place.world_size > 1).to(place.device)
    title, count = f"epoch {epoch}", len(loader)
    lrs = recipe.lrs(epoch, count)
    bar = tqdm(clock.watch(loader), title, count, leave=False, disable=None if place.first else True)
    for i, (images, labels) in enumerate(bar):
        step_ends = (i + 1) % recipe.accumulate == 0 or i + 1 == count
        # The last step of an epoch may have fewer batches than the others
        batches_of_step = min(recipe.accumulate, count - i // recipe.accumulate * recipe.accumulate)
        waits = contextlib.nullcontext() if step_ends or place.world_size == 1 else recipe.network.no_sync()
        with waits:
            with recipe.precision.autocast():
                loss = recipe.objective(images, labels)
            recipe.scaler.scale(loss / batches_of_step).backward()
        if step_ends:
            step(recipe, float(lrs[i]))
        losses.update(loss.detach().float(), len(labels))
        if show_loss and not bar.disable:
            bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{lrs[i]:.4g}")
    clock.stop()
    train_loss = losses.compute().item()
    if not math.isfinite(train_loss):
        raise UserError(f"the training loss became {train_loss} ({title})", "lower lr.lr, or set training.precision")
    return {"train_loss": train_loss, "lr": float(lrs[-1]), **clock.facts()}


def step(recipe: Recipe, lr: float) -> None:
    """One step of the optimizer with the gradients that have been gathered, which are then forgotten."""
    for group in recipe.optimizer.param_groups:
        # A plain float: a NumPy number would keep the checkpoint from loading safely
        group["lr"] = lr * group.get("lr_scale", 1.0)
    if recipe.clip is not None:
        recipe.scaler.unscale_(recipe.optimizer)
        # The head is left out of adaptive clipping, as its authors and timm do
        parameters = model_parameters(recipe.model, exclude_head=recipe.clip_mode == "agc")
        dispatch_clip_grad(parameters, recipe.clip, mode=recipe.clip_mode)
    recipe.scaler.step(recipe.optimizer)
    recipe.scaler.update()
    recipe.optimizer.zero_grad(set_to_none=True)
    if recipe.average is not None:
        recipe.average.update(recipe.model)


def evaluate_all(recipe: Recipe, validation, place: Place, flip: bool) -> dict:
    """Facts of `evaluate` for the model and, as ema_*, for the moving average of its weights."""
    facts = evaluate(recipe.model, validation, recipe.eval_loss, recipe.precision, place, flip)
    if recipe.average is not None and recipe.evaluate_average:
        average = evaluate(recipe.average.module, validation, recipe.eval_loss, recipe.precision, place, flip)
        facts |= {f"ema_{name}": average[name] for name in ("val_loss", "top_1", "top_5")}
        facts["val_time"] += average["val_time"]
    return facts


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, loader, loss_function: Callable, precision: Precision, place: Place, flip: bool
) -> dict:
    """Validation loss and accuracies (fractions), every photo of every rank counted once.

    `model` is the plain one: DistributedDataParallel would synchronise, and hang on unequal shares.
    `flip`: add the outputs for the image and for its mirror image (test-time augmentation); the loss
    is that of their mean. Returns val_loss, top_1, top_5, val_images and val_time (seconds).
    """
    started = time.perf_counter()
    model.eval()
    if place.world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
    classes = len(loader.classes)
    top = {f"top_{k}": MulticlassAccuracy(classes, top_k=min(k, classes), average="micro") for k in (1, 5)}
    metrics = MetricCollection(top, compute_groups=False).to(place.device)
    losses, count = MeanMetric().to(place.device), SumMetric().to(place.device)
    for images, labels in loader:
        with precision.autocast():
            outputs = model(images)
            if flip:
                outputs = (outputs + model(images.flip(3))) / 2
            loss = loss_function(outputs, labels)
        metrics.update(outputs.float(), labels)
        losses.update(loss.float(), len(labels))
        count.update(len(labels))
    images = int(count.compute())
    # torchmetrics divides in float32; what it divided is a count of photos
    accuracies = {name: round(value.item() * images) / images for name, value in metrics.compute().items()}
    val_loss = losses.compute().item()
    return {
        "val_loss": val_loss,
        **accuracies,
        "val_images": images,
        "val_time": time.perf_counter() - started,
    }
