"""Shuffled, in each epoch in another way."""

import numpy as np

from beton.ffcv.traversal_order.base import Shared


class Random(Shared):
    """A permutation by NumPy's generator of the seed and the epoch, as FFCV's is."""

    shuffle = True

    def whole_order(self, epoch: int) -> np.ndarray:
        """See Shared."""
        return np.random.default_rng(self.seed + epoch).permutation(self.indices)
