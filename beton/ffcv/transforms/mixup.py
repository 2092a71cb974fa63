"""Mixup (Zhang and others, "mixup: beyond empirical risk minimization", 2018).

Each sample is mixed with the one before it in its batch. The shares are drawn after the number of the batch's last
sample, so that images and labels, in two pipelines, get the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from beton.errors import UserError
from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.operation import Operation
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import ready
from beton.kernels.jit import jit


@jit
def _shares(alpha, same, indices):
    np.random.seed(indices[-1])
    shares = np.empty(len(indices))
    if same:
        shares[:] = np.random.beta(alpha, alpha)
    else:
        for n in range(len(shares)):
            shares[n] = np.random.beta(alpha, alpha)
    return shares


@jit
def _mix_images(images, target, indices, alpha, same):
    shares = _shares(alpha, same, indices)
    for n in range(len(images)):
        one, other, mixed = images[n].reshape(-1), images[n - 1].reshape(-1), target[n].reshape(-1)
        for i in range(len(one)):
            mixed[i] = shares[n] * one[i] + (1 - shares[n]) * other[i]
    return target


@jit
def _mix_labels(labels, target, indices, alpha, same):
    shares = _shares(alpha, same, indices)
    for n in range(len(labels)):
        target[n, 0], target[n, 1], target[n, 2] = labels[n, 0], labels[n - 1, 0], shares[n]
    return target


class _Mixup(Operation):
    """`alpha`: of the beta distribution of the shares. `same_lambda`: one share for all of a batch."""

    mix: Callable

    def __init__(self, alpha: float, same_lambda: bool):
        super().__init__()
        self.alpha, self.same_lambda = alpha, same_lambda

    def generate_code(self) -> Callable:
        """f(batch, memory, indices)."""
        mix, alpha, same = type(self).mix, float(self.alpha), bool(self.same_lambda)

        def mixer(batch, target, indices):
            return mix(batch, target, indices, alpha, same)

        mixer.with_indices = True
        return ready(mixer)


class ImageMixup(_Mixup):
    """Mixed images. `alpha`: of the beta distribution of the shares. `same_lambda`: one share for all of a batch."""

    mix = _mix_images

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """As before, in other memory."""
        query = AllocationQuery(previous_state.shape, previous_state.dtype)
        return replace(previous_state, jit_mode=True), query


class LabelMixup(_Mixup):
    """Both labels and the share of the first (float32, N x 3), for an ImageMixup with the same arguments."""

    mix = _mix_labels

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """Three numbers a sample."""
        state = replace(previous_state, jit_mode=True, shape=(3,), dtype=np.dtype(np.float32))
        return state, AllocationQuery((3,), np.dtype(np.float32))


class MixupToOneHot(Operation):
    """What LabelMixup has made, a tensor, as shares of `num_classes` classes (N x num_classes)."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.num_classes = num_classes

    def generate_code(self) -> Callable:
        """f(batch, memory)."""
        classes = self.num_classes

        def one_hot(mixed, _):
            made = torch.zeros(len(mixed), classes, dtype=mixed.dtype, device=mixed.device)
            # The second last, as FFCV has it: where both labels are equal, its share stands
            made.scatter_(1, mixed[:, :1].long(), mixed[:, 2:])
            return made.scatter_(1, mixed[:, 1:2].long(), 1 - mixed[:, 2:])

        return ready(one_hot)

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, None]:
        """One number for each class. Raises UserError for an array."""
        if not isinstance(previous_state.dtype, torch.dtype):
            raise UserError("MixupToOneHot takes a tensor", "put ToTensor before it")
        return replace(previous_state, shape=(self.num_classes,)), None
