"""One epoch of training, and evaluation. Every recipe trains with these."""

import math
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torchmetrics import MeanMetric, MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy
from tqdm import tqdm

from pipelines.errors import UserError
from runtime.clock import EpochClock
from runtime.launch import Place
from runtime.precision import Precision


def train_epoch(
    model: torch.nn.Module,
    loader,
    optimizer: torch.optim.Optimizer,
    lrs: np.ndarray,
    loss_function: Callable,
    precision: Precision,
    scaler: torch.amp.GradScaler,
    place: Place,
    title: str = "",
    show_loss: bool = False,
) -> dict:
    """Train one epoch; `lrs` has the learning rate of each iteration.

    Returns train_loss (mean over the photos of all ranks), lr (the last one) and the clock's facts.
    Raises UserError when the loss is not finite at the end.
    """
    model.train()
    clock = EpochClock(place.device)
    losses = MeanMetric(sync_on_compute=place.world_size > 1).to(place.device)
    bar = tqdm(clock.watch(loader), title, len(loader), leave=False, disable=None if place.first else True)
    for lr, (images, labels) in zip(lrs, bar, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = float(lr)  # a NumPy number would keep the checkpoint from loading safely
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            loss = loss_function(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.update(loss.detach().float(), len(labels))
        if show_loss and not bar.disable:
            bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{lr:.4f}")
    clock.stop()
    train_loss = losses.compute().item()
    if not math.isfinite(train_loss):
        raise UserError(f"the training loss became {train_loss} ({title})", "lower lr.lr, or set training.precision")
    return {"train_loss": train_loss, "lr": float(lrs[-1]), **clock.facts()}


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, loader, loss_function: Callable, precision: Precision, place: Place, flip: bool
) -> dict:
    """Validation loss and accuracies (fractions), every photo of every rank counted once.

    `flip`: add the outputs for the image and for its mirror image (test-time augmentation); the loss
    is that of their mean. Returns val_loss, top_1, top_5, val_images and val_time (seconds).
    """
    started = time.perf_counter()
    plain = getattr(model, "module", model)  # DistributedDataParallel would synchronise, and hang on unequal shares
    plain.eval()
    if place.world_size > 1:
        for buffer in plain.buffers():
            dist.broadcast(buffer, 0)
    classes = len(loader.classes)
    top = {f"top_{k}": MulticlassAccuracy(classes, top_k=min(k, classes), average="micro") for k in (1, 5)}
    metrics = MetricCollection(top, compute_groups=False).to(place.device)
    losses, count = MeanMetric().to(place.device), SumMetric().to(place.device)
    for images, labels in loader:
        with precision.autocast():
            outputs = plain(images)
            if flip:
                outputs = (outputs + plain(images.flip(3))) / 2
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
