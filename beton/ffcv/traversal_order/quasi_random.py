"""Shuffled so that a file which is larger than memory is read nearly in sequence."""

from typing import Any

import numpy as np

from beton.ffcv.traversal_order.base import TraversalOrder
from beton.loading.orders import quasi_random_order


class QuasiRandom(TraversalOrder):
    """Pages are shuffled, then the samples within each run of 2 * batch_size of them.

    Other permutations than FFCV's for a seed. Processes may share it: the order is padded by repetition and each takes
    its turn.
    """

    def __init__(self, loader: Any):
        super().__init__(loader)
        table = loader.reader.alloc_table
        pages = np.zeros(loader.reader.num_samples, np.int64)  # of samples without memory: those of the first
        pages[table["sample_id"][::-1]] = table["ptr"][::-1] // loader.reader.page_size
        self._pages = pages[self.indices.astype(np.int64)]

    def sample_order(self, epoch: int) -> np.ndarray:
        """See TraversalOrder."""
        order = self.indices[quasi_random_order(self._pages, 2 * self.loader.batch_size, self.seed, epoch)]
        if not self.distributed:
            return order
        from torch import distributed

        rank, count = distributed.get_rank(), distributed.get_world_size()
        return np.resize(order, -(-len(order) // count) * count)[rank::count]
