"""FFCV-SSL's operations that put what an operation on images has drawn beside the labels."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from beton.errors import UserError
from beton.ffcv.pipeline.allocation_query import AllocationQuery
from beton.ffcv.pipeline.state import State
from beton.ffcv.transforms._drawn import Drawn

_FLOAT = np.dtype(np.float32)


class Label(Drawn):
    """Labels (N x k) as float32 with `columns` more. It has the arguments, and the seed, of the operation on images."""

    columns: ClassVar[int] = 1

    def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
        """More columns. Raises UserError where there is no seed, so that it would draw something else."""
        if self.seed is None:
            what = f"{type(self).__name__} has no seed"
            raise UserError(what, "give it the `seed` of the operation on images, and that one a seed")
        shape = (previous_state.shape[0] + self.columns,)
        return replace(previous_state, jit_mode=True, shape=shape, dtype=_FLOAT), AllocationQuery(shape, _FLOAT)
