"""Training by a recipe, and evaluation. ResNets and transformers train with these."""

import contextlib
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
from torchmetrics import MetricCollection, SumMetric
from torchmetrics.classification import MulticlassAccuracy
from tqdm import tqdm

from pipelines.errors import UserError
from runtime import checkpoint
from runtime.checkpoint import Position
from runtime.clock import EpochClock
from runtime.data import Data
from runtime.interrupt import Keeper
from runtime.launch import Place
from runtime.log import RunFolder
from runtime.precision import Precision

# Batches between two looks at the loss of a GPU, for which it has to be waited
_LOOK_EVERY = 50


@dataclass
class Recipe:
    """What is trained, and how: all that `fit` needs besides the data.

    `model` is the plain model that is saved, `network` the same as it is trained (compiled, parallel).
    `objective(images, labels)` is the loss of a batch, `eval_loss(outputs, labels)` that of validation.
    `lrs(epoch, iterations)` gives the learning rate of each iteration, `resolution(epoch)` the side of the
    images. `accumulate` batches make a step; gradients are clipped to `clip` by `clip_mode` (timm's norm,
    value or agc). `average` is the moving average of the weights (timm's ModelEmaV3), if there is one.
    `start_epoch(epoch, batch)` is called before each epoch, `batch` being the first that is trained.
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
    start_epoch: Callable[[int, int], None] = lambda epoch, batch: None


def fit(recipe: Recipe, settings, place: Place, data: Data, validation, folder: RunFolder, start: Position) -> None:
    """Train from `start` to the end: a log line and a checkpoint an epoch, the weights at the end.

    Raises SystemExit after a signal (runtime/interrupt.py).
    """

    def capture(position: Position, ranks: list[dict]) -> dict:
        parts = (recipe.model, recipe.optimizer, recipe.scaler, recipe.average)
        return checkpoint.capture(position, ranks, settings.flat(), *parts)

    try:
        with Keeper(place, capture, folder.path, settings.training.checkpoint_minutes) as keeper:
            for epoch in range(start.epoch, recipe.epochs):
                begun = start if epoch == start.epoch else Position(epoch)
                line = run_epoch(recipe, settings, place, data, validation, keeper, begun)
                folder.log(line)
                keeper.epoch_ended(Position(epoch + 1))
            if place.first:
                save_weights(recipe.model, folder.path / "final_weights.pt")
                if recipe.average is not None and recipe.evaluate_average:
                    save_weights(recipe.average.module, folder.path / "final_ema_weights.pt")
    finally:
        data.close()
        validation.close()


def run_epoch(recipe: Recipe, settings, place: Place, data: Data, validation, keeper: Keeper, begun: Position) -> dict:
    """Train an epoch, or what is left of it, and evaluate; returns the line for the log."""
    epoch = begun.epoch
    res = recipe.resolution(epoch)
    loader = data.training(epoch, res, begun.batch)
    told = (len(loader), loader.num_samples)
    if begun.batch and tuple(begun.sums["of"]) != told:
        raise UserError(
            f"the checkpoint was made in an epoch of {begun.sums['of'][0]} batches of {begun.sums['of'][1]} photos, "
            f"and {settings.data.train_dataset} has {told[0]} of {told[1]}",
            "resume with the same data set",
        )
    recipe.start_epoch(epoch, begun.batch)
    sums = EpochSums(place, loader, begun)
    show_loss = settings.logging.log_level > 1
    line = train_epoch(recipe, loader, epoch, place, show_loss, sums, keeper)
    keeper.training_ended(sums.position())
    if settings.logging.log_level > 0 or epoch == recipe.epochs - 1:
        line |= evaluate_all(recipe, validation, place, bool(settings.validation.lr_tta))
    about = {"loader": settings.data.loader, "precision": recipe.precision.name}
    return {"epoch": epoch, "res": res, **about, **line}


class EpochSums:
    """What an epoch gathers while it is trained, on this rank: loss, photos, times, samples left out.

    `begun`: where an interrupted epoch goes on; its sums are added to.
    """

    def __init__(self, place: Place, loader, begun: Position):
        sums = begun.sums or {}
        self.epoch, self.batch = begun.epoch, begun.batch
        self.clock = EpochClock(place.device, sums.get("times"))
        self._place, self._loader = place, loader
        self._loss = torch.tensor(sums.get("loss", 0.0), dtype=torch.float64, device=place.device)
        # The first batch whose loss is not finite, and that loss. A tensor, for looking at it waits for a GPU
        self._wrong = torch.tensor([-1.0, 0.0], dtype=torch.float64, device=place.device)
        self._photos, self._lrs = sums.get("photos", 0), {}
        self._left_out = set(sums.get("left_out", ()))

    def add(self, loss: torch.Tensor, photos: int, lr: float) -> None:
        """Count the next batch; raises UserError when its loss is not finite (on a GPU: some batches later)."""
        loss = loss.detach().double()
        now = torch.stack((torch.full_like(loss, self.batch), loss))
        self._wrong = torch.where(torch.isfinite(loss) | (self._wrong[0] >= 0), self._wrong, now)
        self._loss += loss * photos
        self._photos += photos
        self._lrs[self.batch] = lr
        self.batch += 1
        if self._place.device.type == "cpu" or self.batch % _LOOK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Raise UserError when a loss was not finite."""
        batch, loss = self._wrong.tolist()
        if batch < 0:
            self._lrs.clear()
            return
        batch, rank = int(batch), "" if self._place.world_size == 1 else f" on rank {self._place.rank}"
        samples = self._loader.samples(self.epoch, batch) if hasattr(self._loader, "samples") else ()
        raise UserError(
            f"the loss became {loss} in epoch {self.epoch}, batch {batch} of {len(self._loader)}{rank} "
            f"(learning rate {self._lrs[batch]:.4g}, samples {', '.join(map(str, samples))})",
            "lower lr.lr, set training.precision, or look at these samples",
        )

    def left_out(self) -> set[int]:
        """Damaged samples that data.on_error has left out or replaced."""
        return self._left_out | set(getattr(self._loader, "left_out", ()))

    def left_out_anywhere(self) -> set[int]:
        """Those of all ranks."""
        if self._place.world_size == 1:
            return self.left_out()
        ranks = [None] * self._place.world_size
        dist.all_gather_object(ranks, self.left_out())
        return set().union(*ranks)

    def position(self) -> Position:
        """Where the run stands now, with all that it takes to go on from there."""
        self.check()
        self.clock.stop()
        of = [len(self._loader), self._loader.num_samples]
        # The clock may have counted a batch that has come but is not trained
        times = self.clock.facts() | {"images": self._photos}
        sums = {"loss": self._loss.item(), "photos": self._photos, "times": times, "of": of}
        sums["left_out"] = sorted(self.left_out())
        return Position(self.epoch, self.batch, sums)

    def mean_loss(self) -> float:
        """Mean over the photos of all ranks."""
        total = torch.stack((self._loss, torch.full_like(self._loss, self._photos)))
        if self._place.world_size > 1:
            dist.all_reduce(total)
        return (total[0] / total[1]).item()


def save_weights(model: nn.Module, path: Path) -> None:
    """Save weights as they load into the plain model."""
    checkpoint.save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, path)
    print(f"=> Weights in {path}")


def train_epoch(
    recipe: Recipe, loader, epoch: int, place: Place, show_loss: bool = False, sums=None, keeper: Keeper | None = None
) -> dict:
    """Train one epoch, or what is left of it. Returns train_loss (mean over the photos of all ranks), lr (the last
    one) and the clock's facts. Raises UserError when a loss is not finite.

    `sums`: EpochSums of the part before an interruption; `keeper` writes checkpoints between steps.
    """
    recipe.network.train()
    sums = sums or EpochSums(place, loader, Position(epoch))
    title, count = f"epoch {epoch}", len(loader)
    lrs = recipe.lrs(epoch, count)
    hide = None if place.first else True
    bar = tqdm(sums.clock.watch(loader), title, count, leave=False, initial=sums.batch, disable=hide)
    stepped = True
    for i, (images, labels) in enumerate(bar, sums.batch):
        if keeper is not None:
            keeper.step_begins()
        stepped = (i + 1) % recipe.accumulate == 0 or i + 1 == count
        # The last step of an epoch may have fewer batches than the others
        batches_of_step = min(recipe.accumulate, count - i // recipe.accumulate * recipe.accumulate)
        waits = contextlib.nullcontext() if stepped or place.world_size == 1 else recipe.network.no_sync()
        with waits:
            with recipe.precision.autocast():
                loss = recipe.objective(images, labels)
            sums.add(loss, len(labels), float(lrs[i]))
            recipe.scaler.scale(loss / batches_of_step).backward()
        if stepped:
            step(recipe, float(lrs[i]))
            if keeper is not None:
                keeper.step_ended(sums.position)
        if show_loss and not bar.disable:
            bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{lrs[i]:.4g}")
    if not stepped:  # data.on_error=skip has made the epoch shorter
        step(recipe, float(lrs[sums.batch - 1]))
        if keeper is not None:
            keeper.step_ended(sums.position)
    sums.check()
    sums.clock.stop()
    if not sums.batch:
        raise UserError(f"epoch {epoch} has no batch: too many samples are damaged", "write the dataset again")
    facts = {"train_loss": sums.mean_loss(), "lr": float(lrs[sums.batch - 1]), **sums.clock.facts()}
    left_out = sums.left_out_anywhere()
    return facts | ({"left_out": len(left_out)} if left_out else {})


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
    # By default torchmetrics leaves out what is not a number, and waits for the GPU to find out
    losses, count = (SumMetric(nan_strategy="disable").to(place.device) for _ in range(2))
    for images, labels in loader:
        with precision.autocast():
            outputs = model(images)
            if flip:
                outputs = (outputs + model(images.flip(3))) / 2
            loss = loss_function(outputs, labels)
        metrics.update(outputs.float(), labels)
        losses.update(loss.float() * len(labels))
        count.update(len(labels))
    images = int(count.compute())
    if not images:
        raise UserError("there is no photo to validate with: all are damaged", "write the dataset again")
    # torchmetrics divides in float32; what it divided is a count of photos
    accuracies = {name: round(value.item() * images) / images for name, value in metrics.compute().items()}
    val_loss = losses.compute().item() / images
    return {
        "val_loss": val_loss,
        **accuracies,
        "val_images": images,
        "val_time": time.perf_counter() - started,
    }
