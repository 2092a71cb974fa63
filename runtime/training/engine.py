"""Training an epoch by a recipe, and evaluation: the same for ResNets and transformers."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from beton.errors import UserError
from beton.loading.base import Pipeline
from runtime.launch import Rank
from runtime.training.checkpoint import Position
from runtime.training.checkpoint_manager import CheckpointManager
from runtime.training.clip import clip_gradients
from runtime.training.clock import EpochClock, of_all_ranks
from runtime.training.cpu_threads import CpuThreads
from runtime.training.metrics import metrics_of
from runtime.training.precision import Precision
from runtime.training.predictions import Collector
from runtime.training.tracer import Tracer

# Batches between loss checks on a GPU; each check synchronises
_CHECK_EVERY = 50


@dataclass
class Recipe:
    """What is trained, and how: all that training needs besides the data.

    `model` is the plain model that is saved, `network` the same as it is trained (compiled, parallel).
    `objective(images, labels)` is the loss of a batch, `eval_loss(outputs, labels)` that of validation.
    `lrs(epoch, iterations)` gives the learning rate of each iteration, `resolution(epoch)` the side of the
    images in pixels. `accumulate` batches make a step; gradients are clipped to `clip` by `clip_mode` (timm's norm,
    value or agc). `average` is the moving average of the weights (timm's ModelEmaV3), or None. `threads` sets torch's
    number of threads between steps, on a CPU. `tracer` records some steps (training.trace).
    `start_epoch(epoch, batch)` is called before each epoch; `batch` is the first one that is trained.
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
    threads: CpuThreads | None = None
    tracer: Tracer | None = None
    start_epoch: Callable[[int, int], None] = lambda epoch, batch: None


class EpochSums:
    """What this rank accumulates while it trains an epoch: loss, photos, times, samples left out.

    `start`: where an interrupted epoch is resumed; its sums are continued.
    """

    def __init__(self, rank: Rank, pipeline: Pipeline, start: Position):
        sums = start.sums or {}
        self.rank, self.pipeline = rank, pipeline
        self.epoch, self.batch = start.epoch, start.batch
        self.clock = EpochClock(rank.device, sums.get("times"))
        pipeline.arrived = self.clock.arrived
        if pipeline.times:
            pipeline.times.clear()
        self._loss = torch.tensor(sums.get("loss", 0.0), dtype=torch.float64, device=rank.device)
        # The first batch whose loss is not finite, and that loss. A tensor, since reading it waits for a GPU
        self._not_finite = torch.tensor([-1.0, 0.0], dtype=torch.float64, device=rank.device)
        self._photos, self._lrs = sums.get("photos", 0), {}
        self._left_out = set(sums.get("left_out", ()))

    def add(self, loss: torch.Tensor, photos: int, lr: float) -> None:
        """Count the next batch; raises UserError when its loss is not finite (on a GPU some batches later)."""
        loss = loss.detach().double()
        now = torch.stack((torch.full_like(loss, self.batch), loss))
        self._not_finite = torch.where(torch.isfinite(loss) | (self._not_finite[0] >= 0), self._not_finite, now)
        self._loss += loss * photos
        self._photos += photos
        self._lrs[self.batch] = lr
        self.batch += 1
        if self.rank.device.type == "cpu" or self.batch % _CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Raise UserError when a loss was not finite."""
        batch, loss = self._not_finite.tolist()
        if batch < 0:
            self._lrs.clear()
            return
        batch, on_rank = int(batch), "" if self.rank.world_size == 1 else f" on rank {self.rank.rank}"
        samples = ", ".join(map(str, self.pipeline.samples(self.epoch, batch)))
        raise UserError(
            f"the loss became {loss} in epoch {self.epoch}, batch {batch} of {len(self.pipeline)}{on_rank} "
            f"(learning rate {self._lrs[batch]:.4g}, samples {samples})",
            "lower lr.lr, set training.precision, or look at these samples",
        )

    def left_out(self) -> set[int]:
        """Damaged samples that were left out or replaced on this rank (data.on_error)."""
        return self._left_out | set(self.pipeline.left_out)

    def left_out_anywhere(self) -> set[int]:
        """Those of all ranks."""
        if self.rank.world_size == 1:
            return self.left_out()
        ranks = [None] * self.rank.world_size
        dist.all_gather_object(ranks, self.left_out())
        return set().union(*ranks)

    def position(self) -> Position:
        """The present position, with all that is needed to resume there."""
        self.check()
        self.clock.stop()
        # The clock may have counted a batch that has arrived but is not trained
        times = self.clock.facts() | {"images": self._photos}
        length = [len(self.pipeline), self.pipeline.num_samples]
        sums = {"loss": self._loss.item(), "photos": self._photos, "times": times, "of": length}
        sums["left_out"] = sorted(self.left_out())
        sums["window"] = self.pipeline.window and list(self.pipeline.window)
        return Position(self.epoch, self.batch, sums)

    def mean_loss(self) -> float:
        """Mean over the photos of all ranks."""
        total = torch.stack((self._loss, torch.full_like(self._loss, self._photos)))
        if self.rank.world_size > 1:
            dist.all_reduce(total)
        return (total[0] / total[1]).item()


def train_epoch(
    recipe: Recipe, sums: EpochSums, show_loss: bool = False, manager: CheckpointManager | None = None
) -> dict:
    """Train the remaining batches of the epoch of `sums`; `manager` writes checkpoints between steps.

    Returns train_loss (mean over the photos of all ranks), lr (the last one), the clock's facts and, if there are any,
    the number of samples left out. Raises UserError when a loss is not finite.
    """
    recipe.network.train()
    rank, epoch, count = sums.rank, sums.epoch, len(sums.pipeline)
    lrs = recipe.lrs(epoch, count)
    batches = sums.pipeline.batches(epoch, sums.batch)
    batches = sums.clock.watch(recipe.tracer.watch(batches) if recipe.tracer is not None else batches)
    hide = None if rank.first else True
    bar = tqdm(batches, f"epoch {epoch}", count, leave=False, initial=sums.batch, disable=hide)
    stepped = True
    for i, (images, labels) in enumerate(bar, sums.batch):
        if manager is not None:
            manager.step_begins()
        stepped = (i + 1) % recipe.accumulate == 0 or i + 1 == count
        # The last step of an epoch may have fewer batches than the others
        batches_of_step = min(recipe.accumulate, count - i // recipe.accumulate * recipe.accumulate)
        no_sync = contextlib.nullcontext() if stepped or rank.world_size == 1 else recipe.network.no_sync()
        with no_sync:
            with recipe.precision.autocast():
                loss = recipe.objective(images, labels)
            sums.add(loss, len(labels), float(lrs[i]))
            recipe.scaler.scale(loss / batches_of_step).backward()
        sums.clock.mark("compute")
        if stepped:
            _step(recipe, sums, float(lrs[i]), manager)
        if recipe.tracer is not None:
            recipe.tracer.step_ended()
        # On a GPU now and then only: to read the loss waits for it
        if show_loss and not bar.disable and (rank.device.type == "cpu" or (i + 1) % _CHECK_EVERY == 0):
            bar.set_postfix(loss=f"{loss.item():.3f}", lr=f"{lrs[i]:.4g}")
        if recipe.threads is not None:
            recipe.threads.step_ended()
    if not stepped:  # data.on_error=skip has shortened the epoch
        _step(recipe, sums, float(lrs[sums.batch - 1]), manager)
    sums.check()
    sums.clock.stop()
    if not sums.batch:
        raise UserError(f"epoch {epoch} has no batch: too many samples are damaged", "write the dataset again")
    facts = {"train_loss": sums.mean_loss(), "lr": float(lrs[sums.batch - 1]), **of_all_ranks(sums.clock.facts(), rank)}
    if sums.pipeline.times:
        facts["loader_seconds_per_image"] = sums.pipeline.times.per_sample()
    if recipe.threads is not None:
        facts["cpu_threads"] = recipe.threads.count
    left_out = sums.left_out_anywhere()
    return facts | ({"left_out": len(left_out)} if left_out else {})


def _step(recipe: Recipe, sums: EpochSums, lr: float, manager: CheckpointManager | None) -> None:
    step(recipe, lr)
    sums.clock.mark("optimizer")
    if manager is not None:
        manager.step_ended(sums.position)


def step(recipe: Recipe, lr: float) -> None:
    """One step of the optimizer with the accumulated gradients, which are then reset."""
    for group in recipe.optimizer.param_groups:
        # A plain float: weights_only loading of the checkpoint would reject a NumPy number
        group["lr"] = lr * group.get("lr_scale", 1.0)
    if recipe.clip is not None:
        recipe.scaler.unscale_(recipe.optimizer)
        clip_gradients(recipe.model, recipe.clip, recipe.clip_mode)
    recipe.scaler.step(recipe.optimizer)
    recipe.scaler.update()
    recipe.optimizer.zero_grad(set_to_none=True)
    if recipe.average is not None:
        recipe.average.update(recipe.model)


def evaluate_all(
    recipe: Recipe, validation: Pipeline, rank: Rank, flip: bool, collector: Collector | None = None
) -> dict:
    """Results of `evaluate` for the model and, as ema_*, for the moving average of its weights; `collector` gets the
    outputs of the model."""
    given = (validation, recipe.eval_loss, recipe.precision, rank, flip, recipe.threads)
    facts = evaluate(recipe.model, *given, collector)
    if recipe.average is not None and recipe.evaluate_average:
        average = evaluate(recipe.average.module, *given)
        facts |= {f"ema_{name}": value for name, value in average.items() if name not in ("val_images", "val_time")}
        facts["val_time"] += average["val_time"]
    return facts


@torch.no_grad()
def evaluate(
    model: nn.Module,
    validation: Pipeline,
    loss_function: Callable,
    precision: Precision,
    rank: Rank,
    flip: bool,
    threads: CpuThreads | None = None,
    collector: Collector | None = None,
) -> dict:
    """Validation loss and metrics (runtime/training/metrics.py); every photo of every rank counts once.

    `model` is the plain one: DistributedDataParallel would synchronise, and hang on unequal shares.
    `flip`: test-time augmentation: the mean of the outputs for the image and its mirror image, of which the loss is
    computed too. `collector` gets the outputs. Returns val_loss, the metrics, val_images and val_time (seconds).
    """
    started = time.perf_counter()
    model.eval()
    if rank.world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
    metrics = metrics_of(validation, rank)
    total = torch.zeros(1, dtype=torch.float64, device=rank.device)  # of the loss; to read it waits for the device
    images = rows = 0
    for number, batch in enumerate(validation.batches(epoch=0)):
        photos, labels = batch[:2]
        rows = max(rows, len(labels))
        with precision.autocast():
            outputs = _outputs(model, photos, rows)
            if flip:
                outputs = (outputs + _outputs(model, photos.flip(3), rows)) / 2
            loss = loss_function(outputs, labels)
        metrics.update(outputs, labels)
        if collector is not None:
            collector.add(batch, number, outputs)
        total += loss.double() * len(labels)
        images += len(labels)
        if threads is not None:
            threads.step_ended()
    total = torch.cat([total, torch.full_like(total, images)])
    if rank.world_size > 1:
        dist.all_reduce(total)
    loss, images = total.tolist()
    if not images:
        raise UserError("there is no photo to validate with: all are damaged", "write the dataset again")
    facts = {"val_loss": loss / images, **metrics.compute(int(images)), "val_images": int(images)}
    return facts | {"val_time": time.perf_counter() - started}


def _outputs(model: nn.Module, images: torch.Tensor, rows: int) -> torch.Tensor:
    """Outputs (N x C) of images (N x 3 x H x W), computed as a batch of `rows`.

    The last batch is filled up with black images: for another length a compiled model would be compiled anew, and
    cuDNN would try its algorithms anew.
    """
    missing = rows - len(images)
    filled = F.pad(images, (0,) * 7 + (missing,)) if missing else images
    return model(filled)[: len(images)]
