"""Learning rate and resolution by epoch, as in ffcv-imagenet and timm."""

from collections.abc import Callable

import numpy as np
import torch
from timm.scheduler import CosineLRScheduler


def cyclic_lr(epoch: float, peak: float, peak_epoch: float, epochs: int) -> float:
    """Linear from peak / 10000 at epoch 0 to `peak` at `peak_epoch`, then linear to 0 at `epochs`.

    With `peak_epoch` not before `epochs` it ends as it rises.
    """
    if peak_epoch >= epochs:
        return float(np.interp(epoch, [0, peak_epoch], [1e-4 * peak, peak]))
    return float(np.interp(epoch, [0, peak_epoch, epochs], [1e-4 * peak, peak, 0]))


def step_lr(epoch: float, peak: float, ratio: float, length: int, epochs: int) -> float:
    """`peak` times `ratio` for every `length` epochs passed; 0 at the end."""
    return 0.0 if epoch >= epochs else peak * ratio ** (int(epoch) // length)


def iteration_lrs(lr_at: Callable[[int], float], epoch: int, iterations: int) -> np.ndarray:
    """The learning rate of each iteration: linear from this epoch's rate to the next one's (float64)."""
    return np.interp(np.arange(iterations), [0, iterations], [lr_at(epoch), lr_at(epoch + 1)])


def resolution(epoch: int, min_res: int, max_res: int, start_ramp: int, end_ramp: int) -> int:
    """Side in pixels: `min_res` up to `start_ramp`, `max_res` from `end_ramp`, between them a multiple of 32."""
    if epoch <= start_ramp:
        return min_res
    if epoch >= end_ramp:
        return max_res
    return int(np.round(np.interp(epoch, [start_ramp, end_ramp], [min_res, max_res]) / 32)) * 32


def warmup_and_cosine(lr, peak: float, epochs: int, updates: int) -> Callable[[int], np.ndarray]:
    """Function from an epoch to the learning rates of its `updates` steps, by timm's cosine schedule.

    `lr` is the section `lr` of the settings: linear from warmup_lr over warmup_epochs, then cosine from `peak`
    (whose phase counts from epoch 0) to min_lr at `epochs`, then min_lr; or constant. It changes in every
    step, or once an epoch; `one_epoch_late` is DeiT's loop, where epoch e has the rate of epoch e - 1.
    """
    unit = updates if lr.per_iteration else 1
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = CosineLRScheduler(
        optimizer, t_initial=epochs * unit, lr_min=lr.min_lr if lr.schedule == "cosine" else peak,
        warmup_t=lr.warmup_epochs * unit, warmup_lr_init=lr.warmup_lr,
    )  # fmt: skip

    def lrs(epoch: int) -> np.ndarray:
        if lr.per_iteration:
            return np.array([schedule._get_lr(epoch * updates + i)[0] for i in range(updates)])
        return np.full(updates, schedule._get_lr(max(0, epoch - 1) if lr.one_epoch_late else epoch)[0])

    return lrs
