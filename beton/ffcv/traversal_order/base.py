"""What an order is; users may make their own from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np


class TraversalOrder(ABC):
    """Which samples are read, and in which order. `indices`, `seed`, `distributed`: those of the `loader`."""

    def __init__(self, loader: Any):
        self.loader, self.indices, self.seed = loader, loader.indices, loader.seed
        self.distributed, self.sampler = loader.distributed, None

    @abstractmethod
    def sample_order(self, epoch: int) -> Sequence[int]:
        """The samples of an epoch, of this process where several share them."""
        raise NotImplementedError


class Shared(TraversalOrder):
    """An order that processes share as torch's DistributedSampler does it."""

    shuffle = False

    def __init__(self, loader: Any):
        super().__init__(loader)
        if self.distributed:
            from torch.utils.data import DistributedSampler

            # Torch's own, so that it is the same: padded by repetition, every rank as many
            self.sampler = DistributedSampler(self.indices, shuffle=self.shuffle, seed=self.seed, drop_last=False)

    def sample_order(self, epoch: int) -> np.ndarray:
        """See TraversalOrder."""
        if self.sampler is None:
            return self.whole_order(epoch)
        self.sampler.set_epoch(epoch)
        return self.indices[np.array(list(self.sampler))]

    @abstractmethod
    def whole_order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch where one process reads them all."""
        raise NotImplementedError
