"""Which samples an epoch has, where that is not all of a file: a subset, by weights, or an order of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from beton.errors import UserError
from beton.rng import bits, sample_keys

# Set apart from the keys of orders and augmentations
_WEIGHTED, _SAMPLER = 5 << 60, 7 << 60
_TO_DO = "give the numbers of samples, each from 0 on"


class Sampling:
    """The samples `indices` (a subset; some may be there more than once), of them or of all as many as there are drawn
    with replacement by `weights`, or what `order` gives: a function of the epoch, or a torch Sampler.

    `check()` it before use. Two samplings are equal only if they are the same object.
    """

    def __init__(
        self,
        indices: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
        order: Callable[[int], Sequence[int]] | Iterable[int] | None = None,
    ):
        if order is not None and (indices is not None or weights is not None):
            raise UserError("`order` is given, and `indices` or `weights` too", "give one of them")
        self.order = order
        self.indices = None if indices is None else _numbers(indices, "indices")
        self.weights = None if weights is None else _weights(weights)
        self._last: tuple[int, np.ndarray] | None = None

    @property
    def is_ordered(self) -> bool:
        """Whether the samples come in the order that they have."""
        return self.order is not None

    def check(self, num_samples: int) -> None:
        """Raise UserError where this is not for a file of so many samples."""
        if self.indices is not None:
            _check_range("indices", self.indices, num_samples)
        count = num_samples if self.indices is None else len(self.indices)
        if self.weights is not None and len(self.weights) != count:
            raise UserError(f"there are {len(self.weights)} `weights` for {count} samples", "give one for each")

    def population(self, num_samples: int) -> np.ndarray | None:
        """The samples (int64) that an epoch may have; None where only `order` knows."""
        if self.order is not None:
            return None
        samples = np.arange(num_samples) if self.indices is None else self.indices
        return samples if self.weights is None else samples[self.weights > 0]

    def length(self, num_samples: int, seed: int, epoch: int) -> int:
        """How many samples an epoch has."""
        return len(self.samples(num_samples, seed, epoch)) if self.indices is None else len(self.indices)

    def samples(self, num_samples: int, seed: int, epoch: int) -> np.ndarray:
        """The samples of an epoch (int64), before they are shuffled."""
        if self.order is not None:
            if self._last is None or self._last[0] != epoch:  # it may take long, or draw
                self._last = epoch, _ordered(self.order, num_samples, seed, epoch)
            return self._last[1]
        samples = np.arange(num_samples) if self.indices is None else self.indices
        if self.weights is None:
            return samples
        ends = np.cumsum(self.weights)
        drawn = (sample_keys(seed ^ _WEIGHTED, epoch, np.arange(len(samples))) >> np.uint64(11)) * 2.0**-53
        chosen = np.searchsorted(ends, drawn * ends[-1], side="right")
        return samples[np.minimum(chosen, np.flatnonzero(self.weights)[-1])]  # rounding may reach the end

    def __reduce__(self):
        return type(self), (self.indices, self.weights, self.order)


def numbered(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """Views of samples (int64): sample + num_samples * how often the sample was there before, so that one that is drawn
    twice is augmented in two ways."""
    order = np.argsort(samples, kind="stable")
    ranked = samples[order]
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    before = np.arange(len(samples)) - np.repeat(first, np.diff(np.r_[first, len(samples)]))
    views = np.empty_like(samples)
    views[order] = ranked + num_samples * before
    return views


def _numbers(values: Any, name: str) -> np.ndarray:
    numbers = np.asarray(values)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
        raise UserError(f"`{name}` are {numbers.dtype} of shape {numbers.shape}, not a list of whole numbers", _TO_DO)
    return numbers.astype(np.int64)


def _check_range(name: str, numbers: np.ndarray, num_samples: int) -> None:
    wrong = numbers[(numbers < 0) | (numbers >= num_samples)]
    if len(wrong):
        raise UserError(f"`{name}` has {wrong[0]}, and there are {num_samples} samples", _TO_DO)


def _weights(values: Any) -> np.ndarray:
    weights = np.asarray(values, np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise UserError("`weights` are not a list of numbers from 0 on of which some are more", "give one a sample")
    return weights


def _ordered(order: Any, num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """What the user's order is in an epoch; torch's generator, and a Sampler's, begin with (seed, epoch) there."""
    import torch

    generators = [torch.default_generator, getattr(order, "generator", None)]
    generators = [generator for generator in generators if isinstance(generator, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    key = int(bits(sample_keys(seed ^ _SAMPLER, epoch, np.zeros(1))[0], 0, 0)) >> 1
    try:
        for generator in generators:
            generator.manual_seed(key)
        if callable(order):
            found = order(epoch)
        else:
            if hasattr(order, "set_epoch"):
                order.set_epoch(epoch)
            found = order
        found = found if isinstance(found, (np.ndarray, torch.Tensor)) else list(found)
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
    found = _numbers(found, "order")
    _check_range("order", found, num_samples)
    return found
