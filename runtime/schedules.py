"""Learning rate and resolution by epoch, as ffcv-imagenet has them."""

from collections.abc import Callable

import numpy as np


def cyclic_lr(epoch: float, peak: float, peak_epoch: float, epochs: int) -> float:
    """Linear from peak / 10000 at epoch 0 to `peak` at `peak_epoch`, then linear to 0 at `epochs`."""
    return float(np.interp(epoch, [0, peak_epoch, epochs], [1e-4 * peak, peak, 0]))


def step_lr(epoch: float, peak: float, ratio: float, length: int, epochs: int) -> float:
    """`peak` times `ratio` for every `length` epochs that have passed; 0 at the end."""
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
